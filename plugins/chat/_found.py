"""Shared by /search and /ask: the query of a command, and the view of the posts
found."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self

import discord
from bossbot_plugins._archive import Hit, Query
from bossbot_plugins._commands import Asked
from bossbot_plugins._jobs import guild_id_of, message_link
from bossbot_plugins._links import show_link
from bossbot_plugins._readable import channels_for
from bossbot_plugins._spoilers import bars

from bossbot import Refused, _, escape, now, one_line

MAX_WORDS = 2000  # characters of a question
# Characters, so that five posts fit into the 6,000 of a message's embeds.
MAX_TITLE, MAX_NAME, MAX_SENTENCE, MAX_URL = 100, 40, 240, 150
DAY_S = 86400
SINCE = {"day": 1, "week": 7, "month": 31, "year": 366}
BLUE = discord.Colour(0x5865F2)

Since = Literal["day", "week", "month", "year"]
Kind = Literal["image", "video", "audio", "text"]
Place = discord.abc.GuildChannel | discord.Thread | None


class Wanted(NamedTuple):
    """A member's search."""

    words: str = ""  # as ``cleaned``
    like: str = ""  # see ``Query``, as of the rest
    user_id: int = 0
    channel_id: int = 0  # or a category, or a channel with private threads
    platform: str = ""
    kind: str = ""
    since: float = 0
    public: bool = False  # whether everybody in the channel reads the answer

    @classmethod
    def of(
        cls,
        words: str,
        member: discord.User | None,
        channel: Place,
        since: Since | None,
        public: bool,
        **more: str,
    ) -> Self:
        """By the options of a command. Raises Refused: see ``cleaned``."""
        return cls(
            words=cleaned(words),
            user_id=member.id if member else 0,
            channel_id=channel.id if channel else 0,
            since=now() - SINCE[since] * DAY_S if since else 0,
            public=public,
            **more,
        )


def cleaned(words: str) -> str:
    """A member's words without mentions and invisible characters. Raises Refused when
    none are left."""
    names = re.sub(r"<a?:(\w{1,32}):\d+>", r" \1 ", words[:MAX_WORDS])
    text = one_line(re.sub(r"<(?:@[!&]?|#|/[^<>]*:|t:)[^<>\s]*>", " ", names))
    if not text.strip("\"'“”„«»?!.,;:- "):
        raise Refused(_("Tell me in a few words what to look for."))
    return text


async def query_for(asked: Asked, wanted: Wanted) -> Query:
    """The query of a member, with the channels that this member may read now."""
    channels: Collection[int] = await channels_for(asked, public=wanted.public)
    if (place := wanted.channel_id) and place_of(asked, place) in channels:
        channels = [place]
    elif place:
        channels = [one for one in channels if place in above(asked, one)]
    return Query(
        text=wanted.words,
        like=wanted.like,
        guild_id=guild_id_of(asked),
        channels=channels,
        user_id=wanted.user_id,
        platform=wanted.platform,
        kind=wanted.kind,
        since=wanted.since,
    )


def place_of(asked: Asked, channel_id: int) -> int:
    """The channel whose rights a public thread has; for anything else, the channel
    itself."""
    thread = asked.guild.get_thread(channel_id) if asked.guild else None
    return thread.parent_id if thread and not thread.is_private() else channel_id


def above(asked: Asked, channel_id: int) -> list[int]:
    """The channel that a thread is in, or the category of a channel."""
    channel = asked.guild.get_channel_or_thread(channel_id) if asked.guild else None
    ids = (getattr(channel, name, None) for name in ("parent_id", "category_id"))
    return [one for one in ids if one]


# ── How they look ──────────────────────────────────────────────────────────────────


def link_of(hit: Hit) -> str:
    return message_link(hit.guild_id, hit.channel_id, hit.message_id)


def name_of(hit: Hit) -> str:
    """A post's title, as a link to it. Brackets would end the link early."""
    text = hit.title or hit.uploader or hit.platform or _("a post")
    brackets = str.maketrans("[]", "()")
    name = f"[{escape(text.translate(brackets), MAX_TITLE)}]({link_of(hit)})"
    return bars(name) if hit.hidden else name


def about(hit: Hit) -> str:
    """The author, time and place of a post, and the moment in its video."""
    author = escape(hit.uploader, MAX_NAME) if hit.title and hit.uploader else ""
    author = bars(author) if author and hit.hidden else author
    place = f"<#{hit.channel_id}>" if hit.guild_id else ""
    posted = f"<t:{int(hit.posted_at)}:R>"
    return " · ".join(filter(None, (author, posted, place, moment(hit))))


def moment(hit: Hit) -> str:
    """The moment of a match in a video, as a link to the source; "" for other texts."""
    start_s = hit.passages[0].start_s if hit.passages else None
    link = show_link(hit.url, MAX_URL)
    if start_s is None or not link:
        return ""
    minutes, seconds = divmod(int(start_s), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    shown = f"[{clock}:{seconds:02}]({link})"
    return bars(shown) if hit.hidden else shown


def quote(hit: Hit) -> str:
    """The matching sentence, as a quotation, without the title and the author, which
    are shown above it; "" if nothing is left."""
    text = one_line(hit.sentence)
    for shown in (one_line(hit.title), one_line(hit.uploader)):
        text = text.removeprefix(shown).strip()
    sentence = escape(text, MAX_SENTENCE)
    return f"> {bars(sentence) if hit.hidden else sentence}" if text else ""


def shown(number: int, hit: Hit) -> discord.Embed:
    """A post that was found, with a small picture of it."""
    lines = [f"**{number}.** {name_of(hit)}", about(hit), quote(hit)]
    embed = discord.Embed(description="\n".join(filter(None, lines)), colour=BLUE)
    if hit.picture_url:
        embed.set_thumbnail(url=hit.picture_url)
    return embed


def jumps(hits: Mapping[int, Hit]) -> list[discord.ui.Button[Any]]:
    """A button for each post that leads to it, with its number if there are several."""
    several = len(hits) > 1 or 1 not in hits
    return [
        discord.ui.Button(
            label=f"{_('Jump')} {number}" if several else _("Jump"), url=link_of(hit)
        )
        for number, hit in hits.items()
    ]


def numbered(hits: Iterable[Hit], first: int = 1) -> dict[int, Hit]:
    return dict(enumerate(hits, first))


def nothing() -> str:
    return _("I found no posts here that match.")
