"""Keeps the catalogues of translated texts, ``plugins/chat/_locale/*.po``, in step with the
code: ``python tests/tools/catalogues.py`` takes in new texts, leaves out old ones, and
writes the ``.mo`` files that the bot reads. A new text is to be translated in each
``.po``, after which the tool is run again."""

import ast
import importlib
import inspect
import io
import re
import string
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from discord.app_commands import ContextMenu
from discord.ext import commands

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # when it is run as a program
import bossbot

LOCALE = ROOT / "plugins" / "chat" / "_locale"
SHIPPED = ("parts", "engines", "platforms", "processors", "chat", "owner")
# What marks a text, with how many of its arguments are one.
MARKS = {"_": 1, "N_": 1, "ngettext": 2}
# A text by itself, or with its context or its plural form.
Text = tuple[str, str, str]


def plugins() -> list[Path]:
    """The files of the plugins."""
    return sorted(
        path for name in SHIPPED for path in (ROOT / "plugins" / name).rglob("*.py")
    )


def sources() -> list[Path]:
    """The files with texts for members."""
    return [*sorted(ROOT.glob("*.py")), *plugins()]


# ── What there is to translate ─────────────────────────────────────────────────────


def marked(path: Path) -> Iterator[Text]:
    """The texts of a file that are marked.

    Raises:
        ValueError: what is marked is no text, so that nothing could translate it.
    """
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        count = MARKS.get(node.func.id, 0)
        found = [
            one.value for one in node.args[:count] if isinstance(one, ast.Constant)
        ]
        if any(isinstance(one, ast.JoinedStr) for one in node.args[:count]):
            raise ValueError(f"{path}:{node.lineno}: an f-string cannot be translated")
        if count and len(found) == count:
            yield ("", found[0], found[1] if count > 1 else "")


def module_of(path: Path) -> str:
    """The name of a plugin's module: "archive.commands"."""
    names = path.relative_to(ROOT / "plugins").with_suffix("").parts[1:]
    return ".".join(names).removesuffix(".__init__")


def of_commands() -> Iterator[Text]:
    """What Discord and /help show of commands, and /settings of a server's settings."""
    bossbot.open_plugins([ROOT / "plugins" / name for name in SHIPPED])
    for path in plugins():
        module = importlib.import_module(f"bossbot_plugins.{module_of(path)}")
        if hasattr(module, "GuildConfig"):
            fields = module.GuildConfig.model_fields.values()
            yield from (("", field.description, "") for field in fields)
        for kind in vars(module).values():
            if not isinstance(kind, type) or not issubclass(kind, commands.Cog):
                continue
            if kind.__module__ != module.__name__:
                continue
            yield ("", kind.__cog_name__, "")
            for command in kind.__cog_commands__:
                yield from of_command(command)
        if register := getattr(module, "register_commands", None):
            takes = inspect.signature(register).parameters
            for one in register(**dict.fromkeys(takes, MagicMock())):
                if isinstance(one, ContextMenu):
                    yield from docs_of(one)


def docs_of(command: Any) -> Iterator[Text]:
    """What /help says of a command, or of an entry of a menu."""
    doc = inspect.getdoc(command.callback) or ""
    parts = [" ".join(part.split()) for part in doc.split("\n\n")]
    yield ("", parts[0], "")  # in the list
    yield ("", "\n\n".join(parts), "")


def of_command(command: Any) -> Iterator[Text]:
    yield from docs_of(command)
    if slash := getattr(command, "app_command", None):
        yield ("name", slash.name, "")
        yield ("", slash.description, "")
        for one in getattr(slash, "parameters", ()):
            if str(one.description) != "…":
                yield ("", str(one.description), "")
            yield from (("choice", str(c.name), "") for c in one.choices)


def template() -> Catalog:
    """All texts, without translations."""
    found = [text for path in sources() for text in marked(path)]
    found += [("", str(cause), "") for cause in bossbot.Cause]
    catalogue = Catalog(project="Boss-Bot", fuzzy=False)
    for context, one, many in sorted({*found, *of_commands()}):
        if one and not (context == "choice" and one.isdecimal()):
            catalogue.add((one, many) if many else one, context=context or None)
    return catalogue


# ── The catalogues ─────────────────────────────────────────────────────────────────


class Plain(Catalog):
    """A catalogue whose header has only what gettext reads."""

    @property
    def mime_headers(self) -> list[tuple[str, str]]:  # type: ignore[override]
        return [
            ("Language", str(self.locale).replace("_", "-")),
            ("Plural-Forms", self.plural_forms),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]


def blank(like: Catalog) -> Catalog:
    """A catalogue without texts, with the plural forms of another one."""
    new = Plain(like.locale, fuzzy=False)
    # Those that its .po names; babel has others for some languages.
    new._num_plurals, new._plural_expr = like.num_plurals, like.plural_expr
    return new


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=path.stem.replace("-", "_"))


def updated(catalogue: Catalog, texts: Catalog) -> Catalog:
    """A catalogue with exactly the texts there are; new ones have no translation."""
    new = blank(catalogue)
    for message in texts:
        if message.id:
            old = catalogue.get(key(message), message.context)
            same = old and old.id == message.id
            new.add(message.id, old.string if same else None, context=message.context)
    return new


def key(message: Message) -> str:
    return message.id[0] if isinstance(message.id, tuple) else message.id


def as_po(catalogue: Catalog) -> bytes:
    """A .po file's text, the same for the same texts."""
    file = io.BytesIO()
    write_po(file, catalogue, width=90, omit_header=True, no_location=True)
    head = "".join(f'"{k}: {v}\\n"\n' for k, v in catalogue.mime_headers)
    return f'msgid ""\nmsgstr ""\n{head}\n'.encode() + file.getvalue()


def as_mo(po: bytes, locale: str) -> bytes:
    catalogue = read_po(io.BytesIO(po), locale=locale.replace("-", "_"))
    small = blank(catalogue)
    for message in catalogue:
        if message.id and complete(message):
            small.add(message.id, message.string, context=message.context)
    file = io.BytesIO()
    write_mo(file, small)
    return file.getvalue()


def complete(message: Message) -> bool:
    strings = message.string
    return all(strings) if isinstance(strings, (tuple, list)) else bool(strings)


def fields(text: str) -> set[str]:
    """The {names} in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def mistakes(path: Path, texts: Catalog) -> list[str]:
    """What is wrong with a catalogue, a line each."""
    catalogue, wrong = read(path), []
    known = {(message.context, key(message)) for message in texts if message.id}
    there = {(message.context, key(message)) for message in catalogue if message.id}
    wrong += [f"{path.name}: not in the code any more: {one}" for one in there - known]
    wrong += [f"{path.name}: missing: {one}" for one in known - there]
    for message in catalogue:
        if not message.id:
            continue
        where = f"{path.name}: {key(message)!r}"
        ids = message.id if isinstance(message.id, tuple) else (message.id,)
        strings = message.string
        strings = strings if isinstance(strings, (tuple, list)) else (strings,)
        if message.fuzzy or not complete(message):
            wrong.append(f"{where}: not translated")
            continue
        if len(ids) > 1 and len(strings) != catalogue.num_plurals:
            wrong.append(f"{where}: has {len(strings)} plural forms")
        for one in strings:
            try:
                names = fields(one)
            except ValueError as error:
                wrong.append(f"{where}: {error}")
                continue
            if names != fields(ids[-1]):
                wrong.append(f"{where}: has the names {sorted(names)}")
            if message.context == "name" and not is_command_name(one):
                wrong.append(f"{where}: Discord takes no command named {one!r}")
            if one[:1].isspace() != ids[0][:1].isspace():
                wrong.append(f"{where}: another space at its beginning")
    if as_po(updated(catalogue, texts)) != path.read_bytes() or (
        as_mo(path.read_bytes(), path.stem) != path.with_suffix(".mo").read_bytes()
    ):
        wrong.append(f"{path.name}: run python tests/tools/catalogues.py")
    return wrong


def is_command_name(text: str) -> bool:
    """Discord, 2026-11: lower case, letters, digits, - and _."""
    return bool(re.fullmatch(r"[-\w']{1,32}", text)) and text == text.lower()


# ── Texts without a mark ───────────────────────────────────────────────────────────

# Words in these calls are for no member, or are taken from the commands themselves.
ELSEWHERE = (
    *("logger", "log", "Field", "cooldown", "rate", "note", "TypeVar", "Kind"),
    *("guard", "admit", "admit_to", "may_change", "action_of", "describe", "fact"),
    *("PluginError", "ValueError", "RuntimeError", "TimeoutError", "FileNotFoundError"),
    *("Finding", "EndpointError"),
)
WORDS = re.compile(r"[a-z]{2,}[,:;.]? [A-Za-z{(*`]|^\W*[A-Z][a-z]{2,}(\W*$| )")
SQL = re.compile(
    r"\s*(--.*\n\s*)?[A-Z]{2,} |.*\b(AND|FROM|WHERE|IN|SELECT|VALUES)\b", re.DOTALL
)


def unmarked(path: Path) -> Iterator[str]:
    """The texts in a file that a member seems to read, and that nothing translates: a
    line each."""
    yield from _unmarked(ast.parse(path.read_text("utf-8")), path.name)


def _unmarked(node: ast.AST, where: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue  # a docstring
        if isinstance(child, ast.Call) and not {*called(child)}.isdisjoint(
            (*ELSEWHERE, *MARKS)
        ):
            continue
        if isinstance(child, ast.Assign) and ast.unparse(child).startswith("__all__"):
            continue
        text = child.value if isinstance(child, ast.Constant) else None
        if isinstance(text, str) and WORDS.search(text) and not SQL.match(text):
            yield f"{where}:{child.lineno}: {text!r}"
        yield from _unmarked(child, where)


def plain_refusals(path: Path) -> Iterator[str]:
    """Refusals and failures of a file whose words are written there without a mark, a
    line each."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        first = {"Refused": 0, "QueueFull": 0, "Denied": 0, "Wrong": 0, "JobFailed": 2}
        if node.func.id not in first:
            continue
        words = [*node.args[first[node.func.id] :][:1]]
        words += [one.value for one in node.keywords if one.arg == "message"]
        for one in words:
            texts = [
                part.value
                for part in (one.values if isinstance(one, ast.JoinedStr) else [one])
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if re.search("[A-Za-z]{2}", "".join(texts)):
                yield f"{path.name}:{node.lineno}: {ast.unparse(one)}"


def called(call: ast.Call) -> Iterator[str]:
    """The names in what is called: "log" and "bind" for ``log.bind(...)(...)``."""
    for node in ast.walk(call.func):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def main() -> None:
    texts = template()
    for path in sorted(LOCALE.glob("*.po")):
        po = as_po(updated(read(path), texts))
        path.write_bytes(po)
        path.with_suffix(".mo").write_bytes(as_mo(po, path.stem))
    lines = [
        line for path in sorted(LOCALE.glob("*.po")) for line in mistakes(path, texts)
    ]
    print("\n".join(lines) or "All texts are translated.")


if __name__ == "__main__":
    main()
