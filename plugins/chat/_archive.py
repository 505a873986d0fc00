"""Queries to the archive, and their results, whichever plugin keeps it."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import NamedTuple, cast

from bossbot import App, Archive, Passage, Refused, _


class Query(NamedTuple):
    """A search in the archive: its words and its places."""

    guild_id: int  # 0 for a direct message
    channels: Collection[int]  # nothing else is searched: those the asker may read
    text: str = ""  # a member's words
    like: str = ""  # in their place the id of a job: what resembles its post
    user_id: int = 0  # who asked for the post; 0 for anybody, and so on
    platform: str = ""
    kind: str = ""  # "image", "video", "audio", "text"
    since: float = 0  # posted at this time or later; Unix seconds


class Hit(NamedTuple):
    """A post that was found."""

    job_id: str
    rank: int  # its place among all that fit, from 1
    score: float  # comparable within an answer only
    sure: bool  # whether it fits well, and not just perhaps
    sentence: str  # the one that fits best
    passages: Sequence[Passage]  # those that fit, best first
    guild_id: int
    channel_id: int
    message_id: int  # the first message of the post
    user_id: int
    posted_at: float  # Unix seconds
    platform: str
    url: str  # of the source; of a video, at the second of the first passage
    title: str
    uploader: str
    kinds: Sequence[str]  # as in ``Query.kind``
    adult: bool
    picture_url: str = ""  # of a picture in that message; "" if it is to be hidden
    hidden: bool = False  # whether it is a spoiler


class PostArchive(Archive):
    """An archive that remembers posts."""

    remembers = True

    @abstractmethod
    async def search(self, query: Query, limit: int = 5, after: int = 0) -> list[Hit]:
        """The posts that match best and whose messages still exist, best first:
        ``limit`` of those that rank below ``after``. Raises Refused."""

    @abstractmethod
    async def count(self, user_id: int) -> int:
        """The number of remembered posts that a member asked for. Raises Refused."""


def archive_of(app: App) -> PostArchive:
    """The app's archive. Raises Refused if the bot remembers nothing."""
    if not app.archive.remembers:
        raise Refused(_("This bot does not remember its posts."))
    return cast(PostArchive, app.archive)
