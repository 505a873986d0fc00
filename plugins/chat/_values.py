"""Reads the values of a server's settings from members' words, and shows them."""

import re
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import discord
from pydantic import ByteSize, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from bossbot import App, BossbotError, Refused, _, did_you_mean, escape, format_size

YES = ("yes", "y", "on", "true", "1")
NO = ("no", "n", "off", "false", "0")
SHOWN = 10  # values of a list; then how many more there are
MAX_VALUES = 50  # of a list that a member types
QUOTES = "\"'`“”„‟‘’‚«»‹›"  # that members put around a value
MAX_COMMAS = 4  # in a name
MIN_BYTES = 2**20  # of a size without a unit: fewer were meant to be mebibytes
SIZE = TypeAdapter(ByteSize)
ID = r"\d{15,20}"
MENTION = r"<(?:@[!&]?|#)\d+>"
SIGNS = {"role": "@&", "channel": "#", "user": "@"}  # in mentions


class Wrong(BossbotError):
    """A value that does not fit; the text says which, and what may have been meant."""


class Place(NamedTuple):
    """Where names are looked up."""

    app: App
    guild: discord.Guild | None
    member: Any  # who asks; names of channels that they do not see are not known

    def named(self, what: str) -> list[tuple[str, Any]]:
        """Everything of a kind here, by its name."""
        if what == "platform":
            return [(n, n) for n in sorted(self.app.plugins.registered("platforms"))]
        if self.guild is None:
            return []
        if what == "role":
            return [(r.name.removeprefix("@"), r.id) for r in self.guild.roles]
        if what == "user":
            return [(n, m.id) for m in self.guild.members for n in names_of(m)]
        places = [*self.guild.channels, *self.guild.threads]
        return [
            (channel.name, channel.id)
            for channel in places
            if not isinstance(channel, discord.CategoryChannel)
            if channel.permissions_for(self.member).view_channel
        ]


class Kind(NamedTuple):
    """What a field of a model holds, taken apart."""

    type: Any  # without Annotated and None
    marks: tuple[Any, ...] = ()  # of Annotated

    @classmethod
    def of(cls, annotation: Any, marks: Iterable[Any] = ()) -> "Kind":
        marks = tuple(marks)
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            return cls.of(annotation, (*marks, *more))
        if get_origin(annotation) in (Union, types.UnionType):
            inside = [one for one in get_args(annotation) if one is not type(None)]
            if len(inside) == 1:
                return cls.of(inside[0], marks)
        flat = (m.metadata if isinstance(m, FieldInfo) else [m] for m in marks)
        return cls(annotation, tuple(mark for several in flat for mark in several))

    @property
    def what(self) -> str:
        """ "role", "channel", "user", "platform", or ""."""
        known = (*SIGNS, "platform")
        return next((m for m in self.marks if isinstance(m, str) and m in known), "")

    @property
    def inside(self) -> list["Kind"]:
        """Of a list its one kind, of a dictionary two; else none."""
        if get_origin(self.type) in (list, set, frozenset, tuple, dict):
            return [Kind.of(one) for one in get_args(self.type) if one is not ...]
        return []

    @property
    def is_dict(self) -> bool:
        return get_origin(self.type) is dict

    @property
    def has_whole(self) -> bool:
        """Whether the key 0 stands for all that has no entry: a value without a key."""
        return self.is_dict and self.inside[0].bound("ge") == 0

    @property
    def choices(self) -> dict[str, Any]:
        """The words that it takes, if they are so few, and what they mean."""
        if self.type is bool:
            return {"yes": True, "no": False}
        if get_origin(self.type) is Literal:
            return {str(one): one for one in get_args(self.type)}
        if isinstance(self.type, type) and issubclass(self.type, Enum):
            return {str(one.value): one for one in self.type}
        return {}

    def bound(self, *names: str) -> Any:
        """A limit of a number, by its names in ``Field``; None where there is none."""
        found = (getattr(mark, name, None) for mark in self.marks for name in names)
        return next((value for value in found if value is not None), None)


def names_of(member: discord.Member) -> set[str]:
    return {n for n in (member.name, member.display_name, member.global_name) if n}


# ── Read ───────────────────────────────────────────────────────────────────────────


async def read(kind: Kind, text: str, place: Place, before: Any = None) -> Any:
    """A value of this kind, not checked for its limits. ``before`` is a dictionary that
    gets the entries of the text. Raises Wrong, or Refused with a whole sentence."""
    try:
        return await read_kind(kind, text, place, before or {})
    except Wrong:
        inside = text.strip().strip(QUOTES).strip()
        if inside != text.strip():
            return await read(kind, inside, place, before)
        # As it is shown; but something may have that name.
        if (
            kind.inside
            and not kind.has_whole
            and text.strip().casefold() in words_for("none", nothing(kind))
        ):
            return {} if kind.is_dict else []
        raise


async def read_kind(
    kind: Kind, text: str, place: Place, before: Mapping[Any, Any]
) -> Any:
    """See ``read``."""
    if kind.is_dict:
        return await read_entries(kind, text, place, before)
    if kind.inside:
        # Mentions and ids need no commas.
        text = re.sub(MENTION, r"\g<0>,", text)
        text = re.sub(rf"\b({ID})\s+(?=<|{ID}\b)", r"\1,", text)
        return await several(text, lambda one: read_one(kind.inside[0], one, place))
    return await read_one(kind, text, place)


async def read_entries(
    kind: Kind, text: str, place: Place, before: Mapping[Any, Any]
) -> dict[Any, Any]:
    """A dictionary with entries like "@role high"; "@role default" removes one, and
    "high" is for all others where there is such an entry."""
    key_kind, value_kind = kind.inside

    async def entry(one: str) -> tuple[Any, Any]:
        name, _space, word = one.strip().rpartition(" ")
        if not name and not kind.has_whole:
            raise Wrong(quoted(one))
        key = await read_one(key_kind, name, place) if name else 0
        if word.casefold() == "default":
            return key, None
        return key, await read_one(value_kind, word, place)

    entries = dict(await several(text, entry))
    return {k: v for k, v in {**before, **entries}.items() if v is not None}


async def several(text: str, read_it: Callable[[str], Awaitable[Any]]) -> list[Any]:
    """What is read between the commas, each once. A name may have commas in it, so that
    the longest piece counts that can be read."""
    parts = [part for part in text.split(",") if part.strip()]
    found: list[Any] = []
    if len(parts) > MAX_VALUES:
        raise Refused(_("That is more than {count} values.").format(count=MAX_VALUES))
    while parts:
        for count in range(min(len(parts), 1 + MAX_COMMAS), 0, -1):
            try:
                value = await read_it(",".join(parts[:count]))
            except Wrong:
                if count == 1:
                    raise
            else:
                break
        del parts[:count]
        if value not in found:
            found.append(value)
    if not found:
        raise Wrong(quoted(text))
    return found


async def read_one(kind: Kind, text: str, place: Place) -> Any:
    text = text.strip()
    if kind.what:
        return await find(kind.what, text, place)
    if kind.choices:
        words = {word.casefold(): value for word, value in kind.choices.items()}
        if kind.type is bool:
            yes, no = words_for(*YES, _("yes")), words_for(*NO, _("no"))
            words = dict.fromkeys(yes, True) | dict.fromkeys(no, False)
        if text.casefold() not in words:
            raise Wrong(quoted(text) + did_you_mean(text, kind.choices))
        return words[text.casefold()]
    if kind.type is ByteSize:
        try:
            if not re.fullmatch(r"\d*\.?\d+\s*[A-Za-z]*", text, re.ASCII):
                raise ValueError
            size = SIZE.validate_python(text)
            if 0 < size < MIN_BYTES and not text[-1].isalpha():
                raise ValueError  # "10" are no bytes
            return size
        except (ValueError, ValidationError, OverflowError):
            raise Wrong(quoted(text)) from None
    if kind.type in (int, float):
        pattern = r"[+-]?\d+" if kind.type is int else r"[+-]?(\d+\.?\d*|\.\d+)"
        if len(text) > 30 or not re.fullmatch(pattern, text, re.ASCII):
            raise Wrong(quoted(text))
        return kind.type(text)
    return text


async def find(what: str, text: str, place: Place) -> Any:
    """The id or name of a role, channel, member or platform; raises Wrong or Refused."""
    sign = SIGNS.get(what, "")
    found = re.fullmatch(rf"<{sign}!?(\d+)>|({ID})", text) if sign else None
    if found and exists(what, number := int(found[1] or found[2]), place):
        return number
    if what != "platform":
        text = text.removeprefix(sign[0])
    known = place.named(what)
    if what == "user" and place.guild and text and "," not in text:
        for member in await place.guild.query_members(text[:100], limit=100):
            known += [(name, member.id) for name in names_of(member)]
    for same in (str, str.casefold):
        ids = {one for name, one in known if same(name) == same(text)}
        if len(ids) == 1:
            return ids.pop()
        if ids:
            several = _("There are several named {name}. Use a mention or an id.")
            raise Refused(several.format(name=quoted(text)))
    raise Wrong(quoted(text) + did_you_mean(text, [name for name, _id in known]))


def exists(what: str, number: int, place: Place) -> bool:
    """Whether it is here; a member may have left, or be about to come."""
    if what == "user":
        return number < 2**63
    if place.guild is None:
        return False
    if what == "role":
        return place.guild.get_role(number) is not None
    return place.guild.get_channel_or_thread(number) is not None


def words_for(*words: str) -> set[str]:
    """Words as they are compared: what a setting shows in another language counts, too."""
    return {word.casefold() for word in words}


def quoted(text: str) -> str:
    return f"“{escape(text, 100)}”"


# ── Show ───────────────────────────────────────────────────────────────────────────


def show(kind: Kind, value: Any) -> str:
    """A value as members read it; of a long list the beginning."""
    if value is None or value in ("", [], {}, ()):
        return nothing(kind)
    if isinstance(value, SecretStr):
        return "[…]"
    if kind.inside and isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if isinstance(value, Mapping):
            key_kind, value_kind = kind.inside
            pairs = value.items()
            texts = [
                f"{show(key_kind, k)} {show(value_kind, v)}"
                if k
                else show(value_kind, v)
                for k, v in pairs
            ]
        else:
            texts = [show(kind.inside[0], one) for one in value]
        if len(texts) > SHOWN:
            more = _("{count} more").format(count=len(texts) - SHOWN)
            texts = [*texts[:SHOWN], more]
        return ", ".join(texts)
    if kind.what in SIGNS:
        return f"<{SIGNS[kind.what]}{value}>"
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, ByteSize):
        return format_size(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return escape(str(value.value if isinstance(value, Enum) else value), 200)


def nothing(kind: Kind) -> str:
    """The word for no value."""
    every = kind.inside and kind.inside[0].what == "platform"
    return _("all") if every else _("none")


def takes(kind: Kind, place: Place) -> str:
    """The possible values of a setting, in words."""
    if kind.is_dict:
        key_kind, value_kind = kind.inside
        text = _("{key} and then {value}; several with commas")
        if kind.has_whole:
            text = _("{value}; or {key} and then {value}; several with commas")
        return text.format(key=takes(key_kind, place), value=takes(value_kind, place))
    if kind.inside:
        text = _("{value}; several with commas")
        return text.format(value=takes(kind.inside[0], place))
    if kind.what == "role":
        return _("a role (mention, id or name)")
    if kind.what == "channel":
        return _("a channel (mention, id or name)")
    if kind.what == "user":
        return _("a member (mention, id or name)")
    if kind.what == "platform":
        return ", ".join(name for name, _name in place.named("platform"))
    if kind.choices:
        return ", ".join(kind.choices)
    if kind.type is ByteSize:
        return ranged(_("a size such as 20MiB"), kind, format_size)
    if kind.type is int:
        return ranged(_("a whole number"), kind, str)
    if kind.type is float:
        return ranged(_("a number"), kind, lambda value: f"{value:g}")
    return _("a text")


def ranged(text: str, kind: Kind, shown: Callable[[Any], str]) -> str:
    """A kind of number with its limits, in words."""
    least, most = kind.bound("ge", "gt"), kind.bound("le", "lt")
    if least is not None and most is not None:
        text = _("{what} from {least} to {most}").format(
            what=text, least=shown(least), most=shown(most)
        )
    elif least is not None:
        text = _("{what} from {least}").format(what=text, least=shown(least))
    elif most is not None:
        text = _("{what} up to {most}").format(what=text, most=shown(most))
    return text


def suggestions(kind: Kind, typed: str, place: Place) -> list[str]:
    """Values that contain the typed text, first those that begin with it; of a list
    the last one is completed."""
    if not kind.inside:
        return near(kind, typed, place)
    parts = typed.split(",")
    for number in range(max(len(parts) - 1 - MAX_COMMAS, 0), len(parts)):
        last, done = ",".join(parts[number:]), ",".join(parts[:number])
        found = near(kind.inside[1], last, place) if kind.has_whole else []
        found += near(kind.inside[0], last, place)
        name, space, word = last.lstrip().rpartition(" ")
        if kind.is_dict and space and near(kind.inside[0], name, place):
            words = [f"{name} {one}" for one in near(kind.inside[1], word, place)]
            found = found if word and found else words
        if found:
            return [f"{done}, {one}" if done else one for one in found]
    return []


def near(kind: Kind, typed: str, place: Place) -> list[str]:
    """The choices or names of a kind that contain the typed text."""
    sign = SIGNS.get(kind.what, "")[:1]
    names = [sign + name for name, _id in place.named(kind.what)] if kind.what else []
    word = typed.strip().removeprefix(sign).casefold()
    places = {
        one: one.removeprefix(sign).casefold().find(word)
        for one in (*kind.choices, *names)
    }
    found = [one for one, at in places.items() if at >= 0]
    return sorted(found, key=lambda one: places[one] > 0)
