#!/usr/bin/env python3
"""Boss-Bot: paste a link in Discord, and the media behind it is posted there.

This file is the whole core, written to be read from top to bottom. Its first half is what
everything agrees on: the data, what plugins give, the contracts of the parts that a link
passes through, the settings, the hooks. The second half does the work: it loads the
plugins and calls them, and the app takes links in. Everything else is a plugin in
``plugins/``.

    python bossbot.py                 run the bot
    python bossbot.py get URL...      download without Discord
    python bossbot.py --help          list the other commands
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # plugins and core share one module, which is not this one
    import os
    import threading

    import bossbot

    code = bossbot.main()
    end = threading.Timer(3, os._exit, [code])  # a plugin's thread may never end
    end.daemon = True
    end.start()
    sys.exit(code)

import _thread
import argparse
import asyncio
import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import re
import secrets
import shlex
import stat
import threading
import time
import tomllib
import types
import unicodedata
import weakref
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property, partial
from gettext import NullTranslations
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TextIO,
    TypeVar,
    cast,
)

import pluggy
from loguru import logger
from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
)

if TYPE_CHECKING:
    import sqlite3

    import aiosqlite
    import discord
    from discord.ext import commands
    from prometheus_client import CollectorRegistry

    class BossBot(commands.Bot):
        """The Discord bot, as plugins know it."""

        app: App
else:  # importing discord.py takes a while, and few commands need it
    BossBot = object

__version__ = "1.0.0"
API = 1  # a plugin that needs more than this one sets an API of its own
# What plugins may rely on; docs/plugins.md mentions each.
__all__ = [
    "API", "ATTEMPT_STATUSES", "BROKEN_GUILD", "HERE", "HOOKS", "MAX_LINE", "N_",
    "OWN_CAUSES", "PARTS", "PLUGIN_PACKAGE", "SENTENCES", "STOP_WITHIN_S",
    "TERMINAL_STATUSES", "Accepted", "Action", "App", "Archive", "Bench", "BossBot",
    "BossbotError", "Cause", "Change", "ChannelId", "Client", "Courier", "Database",
    "Encoded", "Engine", "Facts", "Fetched", "Finding", "Guilds", "Hooks", "Job",
    "JobFailed", "MediaFile", "Message", "OutOfReach", "OwnPath", "Part", "Passage", "Platform",
    "PlatformConfig", "PlatformName", "Plugin", "PluginConfig", "PluginError",
    "Plugins", "Post", "Priority", "Probe", "Progress", "Queue",
    "QueueFull", "Ran", "Refused", "Report", "Request", "RoleId", "Route", "Router", "Runner",
    "Settings", "StartError", "Status", "Storage", "Stored", "Subcommand", "UserId",
    "Worker", "_", "catalogues", "cut_line", "did_you_mean", "escape", "explain",
    "format_size", "format_time", "hide_secrets", "hookimpl", "import_plugin",
    "in_thread", "language", "make_private", "ngettext", "now", "off_the_clock",
    "one_line", "open_plugins", "parse_toml", "plugin_folders", "public_url", "redact",
    "time_left_s",
]  # fmt: skip

# ── Errors ─────────────────────────────────────────────────────────────────────────


class BossbotError(Exception):
    """The root of our errors; ``str(error)`` is safe to show to a member.

    BossbotError
    ├── StartError        the bot cannot start or go on
    ├── PluginError       a plugin is wrong and switched off
    ├── Refused           a rule or a check says no
    │   ├── QueueFull
    │   └── OutOfReach    what is asked does not answer now
    └── JobFailed         an attempt brought nothing
    """


class StartError(BossbotError):
    """The bot cannot start or go on; the text names the remedy. Exit code 2."""


class PluginError(BossbotError):
    """A plugin is wrong: it is switched off, and the others run."""


class Refused(BossbotError):
    """A rule or a ``check_*`` hook says no; the text is shown to the member."""

    platform = ""  # the link's platform, if that is known

    def __init__(self, *words: str, cause: Cause | None = None) -> None:
        super().__init__(*words)
        self.cause = cause or Cause.PERMISSION  # of the job that it ends


class QueueFull(Refused):
    """The guild has ``max_queue_size`` jobs waiting already."""


class OutOfReach(Refused):
    """What is asked does not answer now. A member is refused; a worker asks again."""


class JobFailed(BossbotError):
    """An attempt ended without its media.

    Args:
        cause: what kind of failure it is; its sentence is shown to the member.
        detail: for the log, in the engine's words.
        message: shown in place of the cause's sentence.
        retry_after_s: how long the site asked to wait; None when it did not say.
    """

    def __init__(
        self,
        cause: Cause,
        detail: str = "",
        message: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        # A short wait is over by the time a member reads it: the bot has tried again.
        if cause is Cause.RATE_LIMITED and (retry_after_s or 0) > 60:
            wait = format_time(retry_after_s or 0)
            text = _("The site asks us to slow down. Try again in {wait}.")
            message = message or text.format(wait=wait)
        super().__init__(message or SENTENCES[cause])
        self.cause = cause
        self.detail = redact(cut_line(detail))
        self.retry_after_s = retry_after_s


# ── Text ───────────────────────────────────────────────────────────────────────────

# Whoever answers a member sets the language, by Discord's name for it ("de"), and a
# plugin brings the catalogues. The texts in the code are English.
language: ContextVar[str] = ContextVar("language", default="en")
catalogues: dict[str, NullTranslations] = {}
_ENGLISH = NullTranslations()


def _(text: str) -> str:
    """A text for members, in their language; fill in its ``{names}`` afterwards."""
    return catalogues.get(language.get(), _ENGLISH).gettext(text) if text else ""


def ngettext(one: str, many: str, count: int) -> str:
    """The same, by a count: "{count} file" or "{count} files"."""
    return catalogues.get(language.get(), _ENGLISH).ngettext(one, many, count)


def N_(text: str) -> str:
    """A text that is translated where it is shown, by ``_()``: for constants."""
    return text


def format_size(size: float) -> str:
    """ "20 MiB", "1.5 MiB": the units that Discord and the settings count in."""
    return ByteSize(size).human_readable(separator=" ").replace(".0 ", " ")


def format_time(seconds: float) -> str:
    """ "0.8 s", "8 s", "2 min 5 s", "1 h 4 min"."""
    if seconds < 3:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n)


MAX_LINE = 2048  # characters of a line from outside that anything looks at


def cut_line(text: str, limit: int = MAX_LINE) -> str:
    """The start of a text from outside. What is left out is never the second half of a
    known secret, whose first half nothing would recognise."""
    if len(text) <= limit:
        return text
    for secret in _secrets:
        at = text.find(secret, max(limit - len(secret), 0), limit + len(secret))
        limit = at if 0 <= at < limit else limit
    return text[:limit] + "…"


def one_line(text: str, *, fold: bool = True) -> str:
    """Text from outside without control, bidirectional and zero-width characters; white
    space becomes spaces, and runs of it one space unless ``fold`` is off."""
    if not text.isprintable():  # most is
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)  # ANSI colours
        text = "".join(
            char
            for char in re.sub(r"\s", " ", text)
            if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
        )
    return " ".join(text.split()) if fold else text


def escape(text: str, limit: int = 200) -> str:
    """Text from outside, safe to show in Discord: one line of at most ``limit``
    characters, then escaped, so that no mention, link or mark-up works."""
    text = one_line(text[: 8 * limit + MAX_LINE])  # much of it may be invisible
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = re.sub(r"([\\*_~`|>\[\]()#<@])", r"\\\1", text)
    text = re.sub(r"^(\d*)([-+.])(?=\s|$)", r"\1\\\2", text)  # a list
    text = re.sub(r"(?i)(discord(?:app)?)\.(?=\w)", r"\1\\.", text)  # invites, gifts
    return text.replace("//", "\\/\\/")


def without_queries(text: str) -> str:
    """Text in which no link, whole or cut, keeps what follows its "?": that may be a
    secret."""

    def shorten(word: re.Match[str]) -> str:
        text = word[0]
        if scheme := re.search(r"\w://", text):
            query = re.compile("[?#]").search(text, scheme.end())
            text = text[: query.start()] if query else text
        return re.sub(r"\?[\w%.~\[\]-]+=.*", "", text, flags=re.DOTALL)

    if "?" not in text and "#" not in text:
        return text
    # Word by word, since a pattern that begins anywhere takes quadratic time.
    return re.sub(r"[^\s'\"<>]+", shorten, text)


def public_url(job: Job) -> str:
    """A job's link for logs and files. What follows "?" or "#" may hold secrets, except
    on a known platform, which has dropped all but what names the post."""
    return job.url if job.platform else re.split(r"[?#]", job.url)[0]


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """ " (did you mean max_items?)", or "" when nothing is like it."""
    close = difflib.get_close_matches(key, list(known), 1)
    text = _("(did you mean {name}?)")
    return f" {text.format(name=close[0])}" if close else ""


# ── The data ───────────────────────────────────────────────────────────────────────


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_STARTED_S = time.time() - time.clock_gettime(_CLOCK)


def now() -> float:
    """Unix seconds by a clock that nobody sets while the bot runs."""
    return _STARTED_S + time.clock_gettime(_CLOCK)


class Status(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    PROCESSING = "processing"
    UPLOADING = "uploading"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_STATUSES = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
# An attempt is under way: it has files on the disk that are not kept yet.
ATTEMPT_STATUSES = (Status.DOWNLOADING, Status.PROCESSING)


class Priority(IntEnum):
    """Which waiting job goes first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class Cause(StrEnum):
    """Why a job failed."""

    INVALID_URL = "invalid_url"
    UNSUPPORTED = "unsupported"
    LOGIN = "login"
    AGE = "age"
    PRIVATE = "private"
    GONE = "gone"
    REGION = "region"
    RATE_LIMITED = "rate_limited"
    NETWORK = "network"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    NO_MEDIA = "no_media"
    QUOTA = "quota"
    PERMISSION = "permission"
    DISK_FULL = "disk_full"
    ENGINE_OUTDATED = "engine_outdated"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


# Of these, only the job's own member and channel are at fault.
OWN_CAUSES = (Cause.CANCELLED, Cause.PERMISSION, Cause.QUOTA)

# What a member reads: what happened, and what to do next.
SENTENCES = {
    Cause.INVALID_URL: N_(
        "That is not a link I can open. Check it and paste it again."
    ),
    Cause.UNSUPPORTED: N_("I can't download from that site."),
    Cause.LOGIN: N_(
        "You have to be logged in to see that post. Ask the bot's owner to add a "
        "login for this site."
    ),
    Cause.AGE: N_(
        "That post is age-restricted. Ask the bot's owner to add a login for this site."
    ),
    Cause.PRIVATE: N_("That post is private. Only its followers can see it."),
    Cause.GONE: N_("That post has been deleted or never existed. Check the link."),
    Cause.REGION: N_("That post is not available in the country the bot runs in."),
    Cause.RATE_LIMITED: N_(
        "The site asks us to slow down. Try again in a few minutes."
    ),
    Cause.NETWORK: N_("The site could not be reached. Try again later."),
    Cause.TOO_LARGE: N_("That is larger than the bot's owner allows."),
    Cause.TIMED_OUT: N_(
        "The site is too slow: that took too long and was stopped. Try again later."
    ),
    Cause.NO_MEDIA: N_("There is no photo, video or sound behind that link."),
    Cause.QUOTA: N_("This server has used up its share for today. Try again tomorrow."),
    Cause.PERMISSION: N_(
        "I am not allowed to post files here. Ask an admin to give me Send Messages "
        "and Attach Files."
    ),
    Cause.DISK_FULL: N_("The bot's disk is full. Ask the bot's owner to make room."),
    Cause.ENGINE_OUTDATED: N_(
        "The site has changed. Ask the bot's owner to update the bot's engines."
    ),
    Cause.CANCELLED: N_("Cancelled."),
    Cause.INTERNAL: N_("Something went wrong inside the bot. Its log has the details."),
}


@dataclass(slots=True)
class Post:
    """A message of a job, frozen before it is sent, so that no crash sends it twice."""

    number: int  # from 1; the message's nonce is made of it
    content: str
    files: dict[str, str] = field(default_factory=dict)  # name to SHA-256, in order
    state: Literal["waiting", "sending", "sent", "dropped"] = "waiting"
    message_id: int = 0  # Discord's, once it is sent
    sending_at: float = 0  # Unix seconds of the first try; 0 before
    notes: dict[str, str] = field(default_factory=dict)  # of those files: see MediaFile
    alts: dict[str, str] = field(default_factory=dict)  # likewise
    # The channel's thread that it goes into, 0 until that is made; None for none.
    thread_id: int | None = None
    channel_id: int = 0  # where it is, once it is sent


@dataclass(slots=True, kw_only=True)
class Job:
    """One link of one member, from the queue to the channel, with everything that a
    worker on another machine needs. Times are Unix seconds."""

    # Set when the link is taken in, and never again:
    id: str = field(default_factory=lambda: secrets.token_hex(5))  # 10 hex digits
    url: str  # normalised at intake; what the engine gets
    platform: str = ""  # a platform's name, or "" for any other link
    guild_id: int = 0  # 0 in a direct message
    channel_id: int = 0  # 0 when the job has no channel (the command line)
    user_id: int = 0
    request_key: str = ""  # one per link of a message or interaction; taken once
    message_id: int = 0  # the request to reply to; 0 for none
    options: dict[str, Any] = field(default_factory=dict)  # asked for: spoiler...
    guild_settings: dict[str, Any] = field(default_factory=dict)  # as they were then
    limit_bytes: int = 0  # of one file in its channel
    same: str = ""  # while it is under way, others with the same join it; "": none
    created_at: float = field(default_factory=now)

    # Set by the queue's own verbs:
    status: Status = Status.QUEUED
    priority: Priority = Priority.NORMAL
    position: int = 0  # in its guild's line when it was added; 0: it starts at once
    joins: str = ""  # the id of the job that brings its files, too, or has brought them
    status_message_id: int = 0  # our message that shows the progress
    worker: str = ""  # the holder of the claim
    claim_number: int = 0  # grows with each claim; an older attempt changes nothing
    lease_until: float = 0
    not_before: float = 0  # not claimed before; a retry waits
    attempts: int = 0
    crashes: int = 0  # attempts in a row, begun, that did not end before the bot
    started_at: float = 0

    # Set by the holder of the claim, and stored with ``Queue.save``:
    engine: str = ""  # an engine's name
    facts: dict[str, Any] = field(default_factory=dict)  # of the post: see Report.info
    posts: list[Post] = field(default_factory=list)  # what is or was posted
    # The downloaded files in those posts: the end of each one's name, and its SHA-256.
    sources: list[list[str]] = field(default_factory=list)
    folder: str = ""  # of the kept files, under data_dir; "" when there are none
    file_count: int = 0
    total_bytes: int = 0
    cause: Cause | None = None
    error: str = ""  # the member's sentence
    detail: str = ""  # the log's
    finished_at: float = 0

    def __post_init__(self) -> None:
        self.status = Status(self.status)
        self.priority = Priority(self.priority)
        self.cause = Cause(self.cause) if self.cause else None

    @property
    def title(self) -> str:
        return str(self.facts.get("title") or "")

    @property
    def posted(self) -> int:
        """How many files are in its channel."""
        return sum(len(post.files) for post in self.posts if post.state == "sent")

    @property
    def language(self) -> str:
        """The language in which its member is answered."""
        return str(self.options.get("language") or "en")


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of a job, checked: a regular file inside the job's folder."""

    path: Path
    size: int  # bytes
    sha256: str
    mime: str
    note: str = ""  # how it was made to fit: "1080p to 720p to fit 20 MiB"
    alt: str = ""  # what can be seen on it, as the site says
    failure: JobFailed | None = None  # why it cannot be posted, whatever its size
    beside: bool = False  # kept with the job's files, but not posted

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download or an encoding is; None where that is not known."""

    name: str  # of the file at hand, as the site calls it, or of the step
    done_bytes: int = 0
    total_bytes: int | None = None
    speed_bytes_s: float | None = None
    item: int = 1  # 1 is the first file
    items: int | None = None
    share: float | None = None  # 0 to 1, of work that is not counted in bytes


class Change(NamedTuple):
    """A committed change of a job, or how far it is."""

    job: Job  # as it is now
    previous: Status | None = None  # None for a new job, or when it is not known
    progress: Progress | None = None  # then nothing was committed


@dataclass
class Fetched:
    """What an engine brought."""

    paths: list[Path] = field(default_factory=list)  # as named by the child, unchecked
    facts: dict[str, Any] = field(default_factory=dict)  # see Report.info
    failures: list[JobFailed] = field(default_factory=list)  # of single items
    folder: Path = Path(".")  # where it put them
    alts: dict[str, str] = field(default_factory=dict)  # what is on files, by name
    notes: dict[str, str] = field(default_factory=dict)  # of kept ones: see MediaFile
    files: list[MediaFile] = field(default_factory=list)  # the paths, once checked
    checked: int = 0  # so many of the paths


class Ran(NamedTuple):
    """How a program ended."""

    exit: int
    stdout: str  # the last 16,384 characters
    stderr: str  # likewise


class Encoded(NamedTuple):
    """What ffmpeg wrote."""

    length_s: float  # as far as it said
    said: str  # the end of what it printed


@dataclass(frozen=True, slots=True)
class Probe:
    """What ffprobe found in a file; None or "" for what it does not have."""

    container: str  # ffprobe's names, for example "mov,mp4,m4a,3gp,3g2,mj2"
    duration_s: float | None = None
    video: str = ""  # the codec of the first picture stream that is no cover
    width: int = 0  # pixels
    height: int = 0
    pixel_format: str = ""
    frames_per_s: float | None = None  # on average
    audio: str = ""  # the codec of the first sound stream
    index: int = -1  # of that picture stream in the file
    audio_index: int = -1
    rotation: int = 0  # degrees by which a player turns the picture
    shape: float = 1  # the width of a pixel, its height being 1
    profile: str = ""  # of the picture's codec
    level: int = 0  # likewise: 41 for 4.1
    interlaced: bool = False
    ticks_per_s: float = 0  # what all times of its frames are multiples of
    transfer: str = ""  # ffprobe's name of its light: "smpte2084"
    channels: int = 0  # of the sound
    start_s: float = 0  # when the first picture or sound comes; the file may end later


class Accepted(NamedTuple):
    """How a link was taken in: as a job, or with an answer in its place."""

    job: Job | None
    answer: str = ""
    view: discord.ui.View | None = None  # the answer's buttons


@dataclass(kw_only=True)
class Action:
    """What a member is about to do by a command, a button or a menu."""

    name: str  # of the command: "queue clear"
    group: str  # whose roles a server may name: "download", "queue", "settings"...
    guild_id: int  # 0 in a direct message
    channel: Any  # discord.abc.Messageable
    user: Any  # discord.Member, in a direct message discord.User
    permissions: discord.Permissions  # the member's, in that channel
    needs: Sequence[str] = ()  # those of them that the action takes
    owner: bool = False  # whether the member is the bot's owner
    dry: bool = False  # only asked whether it may be done; counts for no limit
    request: str = ""  # the message's or interaction's id; begins its jobs' request_key
    priority: Priority = Priority.NORMAL  # of its jobs; a check may change it
    guild_settings: dict[str, Any] = field(default_factory=dict)


# ── What plugins give ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Platform:
    """A site known by name: which links are its, which engine fetches them, and how.
    The loader fills in what every platform can be set to (see PlatformConfig)."""

    name: str
    pattern: str  # a regular expression that matches the start of its links
    example: str  # a link that the pattern must match
    engine: str
    options: dict[str, Any] = field(default_factory=dict)  # the engine's own options
    # Other engines for some links: (pattern, engine), first match wins.
    routes: Sequence[tuple[str, str]] = ()
    # More of them for the author's whole thread, if the engine can fetch one.
    thread_options: dict[str, Any] = field(default_factory=dict)
    adult: bool = False  # whether all of it is not for minors
    title: str = ""  # as people write its name; "" for the name itself
    # Folds aliases and tracking parameters; may raise Refused.
    normalise: Callable[[str], str] = lambda url: url
    # The same for all normalised links to one post.
    identity: Callable[[str], str] = lambda url: url
    # A regular expression: normalised links that only redirect to a post.
    short: str = ""
    cookies: dict[str, SecretStr | None] = field(default_factory=dict)
    cookies_file: Path | None = None  # cookies.txt; rotated cookies are written back
    cookies_domain: str = ""  # ".x.com": where named cookies go, and nowhere else
    login_probe: str = ""  # a link that opens only with a login, for check --login
    proxy: str | None = None
    sleep_request_s: float = 0  # between two requests to the site
    # What the site's own words mean: (regular expression, cause), first match wins.
    failures: Sequence[tuple[str, Cause]] = ()

    def engine_for(self, url: str) -> str:
        """The engine that fetches one of its links."""
        routed = (e for p, e in self.routes if re.match(p, url, re.IGNORECASE))
        return next(routed, self.engine)


@dataclass
class Request:
    """What an engine gets in the child: the link and the limits."""

    url: str
    folder: Path  # where files go, and nowhere else; exists and is empty
    prefix: str  # every file's name starts so: f"{prefix}_{number:04d}.{ext}"
    engine: str = ""
    platform: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # what was asked for
    engine_options: dict[str, Any] = field(default_factory=dict)  # the platform's
    cookies_file: Path | None = None  # a Netscape cookies.txt of this attempt's own
    cache_dir: Path = Path(".")  # the engine's cache for this platform
    programs: dict[str, str] = field(default_factory=dict)  # ffmpeg, deno...: paths
    proxy: str | None = None
    sleep_request_s: float = 0
    timeout_s: float = 600
    max_items: int = 50
    max_requests: int = 10_000  # for pages, files and pieces of files
    max_file_bytes: int = 0  # of one source file
    max_job_bytes: int = 0  # of all source files
    target_bytes: int = 0  # what can be posted: prefer a format that fits; 0 for any
    failures: Sequence[tuple[str, Cause]] = ()


class Report(Protocol):
    """How an engine reports on its work, in the child."""

    def info(self, **facts: Any) -> None:
        """Report on the post: title, uploader, date (ISO 8601), text, adult (true or
        false); items, how many files it has; more, whether some were left out; mute,
        whether a video's sound was; side and best_side, the shorter sides in pixels of
        the video that was chosen to fit and of the best there is; leads_to, the link
        that one redirects to, before that is opened. What is known of a file comes
        before it: it may be posted while others are downloaded."""

    def progress(self, progress: Progress) -> None:
        """Report how far a file is; cheap, call it for every chunk."""

    def file(self, path: Path, alt: str = "") -> None:
        """Report that a file is complete, in the order of the post; ``alt`` is what can
        be seen on it, as the site says."""

    def item_failed(self, failure: JobFailed) -> None:
        """Report that one item could not be fetched; the others go on."""


@dataclass(frozen=True)
class Engine:
    """A way to fetch. All four functions run in the fork server or its children, with
    the engine's library imported inside them: the bot itself never imports it."""

    name: str
    version: Callable[[], str]
    # Imports the library and builds what is slow, once; then it is called in a copy of
    # the process, too, where it shows which memory a download changes.
    warm: Callable[[], None]
    # Whether an extractor of the engine's own knows the link; no network.
    supports: Callable[[str], bool]
    # Downloads all files of a link, or raises JobFailed.
    download: Callable[[Request, Report], None]
    generic: bool = False  # it can also try a page that no extractor knows
    # Whether it knows the link as one post. For a profile, a set, or a file by its mere
    # ending, another engine that does goes first, and is asked when this one fails.
    single: Callable[[str], bool] = lambda url: True
    # What a JobFailed may tell a member; any other sentence gives way to its cause's.
    sentences: Sequence[str] = ()


@dataclass(frozen=True)
class Subcommand:
    """``python bossbot.py <name>``."""

    name: str
    help: str
    # Returns the exit code; the app is stopped when it ends.
    run: Callable[[App, argparse.Namespace], Coroutine[Any, Any, int]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


@dataclass
class Message:
    """What ``decorate_message`` may change: the message that carries the files."""

    content: str
    embed: discord.Embed | None = None
    view: discord.ui.View | None = None


@dataclass(frozen=True)
class Finding:
    """Something missing on this machine, for ``check``."""

    what: str  # "ffmpeg is missing"
    cost: str  # "videos cannot be made to fit"
    remedy: str  # "apt install ffmpeg"
    fatal: bool = False  # the bot cannot run without it


class Bench(ABC):
    """The workbench of ``process_files``: a folder, the limit, and ffmpeg in a sandbox,
    killed with the job."""

    limit_bytes: int  # of one file in the job's channel

    @abstractmethod
    def path(self, name: str) -> Path:
        """Where to write a new file with this ending, such as "small.mp4"."""

    @abstractmethod
    async def file(self, path: Path) -> MediaFile:
        """A file that was written there, checked.

        Raises:
            JobFailed: it is empty, holds no media, or lies elsewhere.
        """

    @abstractmethod
    async def ffmpeg(
        self,
        *argv: str | Path,
        label: str = N_("Making it fit"),
        length_s: float = 0,
        encodes: bool = False,
    ) -> Encoded:
        """Run ffmpeg with these arguments, paths as ``Path``. The status message shows
        the label and, when ``length_s`` says how long the result will be, the share
        that is done. What ``encodes`` video waits for its turn, and then for the time
        of the processor that nothing else wants.

        Raises:
            JobFailed: ffmpeg is missing, failed, took too long, or filled the disk.
        """

    @abstractmethod
    async def probe(self, file: MediaFile) -> Probe:
        """What is in a file, by ffprobe.

        Raises:
            JobFailed: ffprobe is missing or cannot read the file.
        """

    @abstractmethod
    async def apng(self, file: MediaFile) -> MediaFile:
        """A WebP that moves as an animated PNG, which ffmpeg can read.

        Raises:
            JobFailed: it is damaged, or too large.
        """


# ── The parts ──────────────────────────────────────────────────────────────────────


_T = TypeVar("_T")
_Files = Sequence[MediaFile]
_OnProgress = Callable[[Progress], None]


class Part(ABC):  # noqa: B024
    """One station on a link's way, made by a plugin's ``register_parts``. The part
    ``queue`` is a ``Queue``, found as ``app.queue``, and lives in ``..._queue.py``."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def start(self) -> None:  # noqa: B027
        """Get ready. Called by ``App.start``, after the parts that come before."""

    async def stop(self) -> None:  # noqa: B027
        """Let go of everything, also after half a start."""

    async def health(self) -> str:
        """What keeps it from working now, in a few words; "" for nothing. Cancelled
        after two seconds."""
        return ""


class Route(NamedTuple):
    """Where a link goes."""

    url: str  # normalised
    platform: str  # "" for one that no platform knows
    engine: str  # "" when the engines have to be asked: see Runner.supports


class Router(Part):
    """Decides where links go, and which may not be opened."""

    @abstractmethod
    def route(self, link: str) -> Route:
        """Where a member's link goes. Raises Refused when it may not be opened."""


class Runner(Part):
    """Runs engines and programs away from the bot: in a sandbox, limited, and dead when the
    bot is."""

    @abstractmethod
    async def supports(
        self,
        urls: Sequence[str],
        without: str = "",
        after_guess: bool = False,
        own: bool = False,
    ) -> list[str]:
        """For each link the engine with an extractor of its own for it, best one that
        knows it as one post, else the generic one; "" if there is none. ``without``
        leaves that engine out, and the generic one unless that engine may have guessed;
        with ``after_guess`` there is no other one unless either may have. With ``own``
        only one that knows the site: not the generic one, nor by a file's mere ending."""

    @abstractmethod
    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """Each engine's version, and its age in days if that can be told."""

    @abstractmethod
    async def fetch(
        self,
        request: Request,
        on_progress: _OnProgress,
        on_file: Callable[[Fetched], None],
    ) -> Fetched:
        """Run an engine on a request; without one, the one that ``supports`` names, then
        set in the request. ``home`` beside the request's folder is its home. Brings at
        most ``max_items`` files; ``on_file`` gets what is there after each one, and once
        it is known where the link leads.

        Raises:
            JobFailed: the engine failed, or was killed for what it did.
        """

    @abstractmethod
    async def run(
        self,
        argv: Sequence[str],
        home: Path,
        on_line: Callable[[str], None] | None = None,
        background: bool = False,
    ) -> Ran:
        """Run one of the helper programs on local files, with ``home`` as its home and
        working directory; ``on_line`` gets the lines of its stdout as they come. In the
        ``background`` it has the lowest priority, and this machine's encoders.

        Raises:
            JobFailed: it was killed, or is none of the helper programs.
        """

    def downloads(self) -> int:
        """How many downloads run now."""
        return 0

    def end_all(self, failure: JobFailed) -> int:
        """End what fetches and runs now, at once, with this failure; returns how many."""
        return 0


class Stored(NamedTuple):
    """Files that lie in the storage, and the job they came from."""

    job_id: str
    guild_id: int
    path: Path
    size_bytes: int
    changed_at: float  # Unix seconds


class Storage(Part):
    """Where files are. Only the storage knows how they are laid out."""

    @abstractmethod
    async def inspect(self, path: Path, folder: Path) -> MediaFile:
        """A file, checked: media or plain text, whatever its name.

        Raises:
            JobFailed: it is no regular file inside the folder, is empty, or holds no
                media.
        """

    @abstractmethod
    async def attempt_folder(self, job: Job) -> Path:
        """A new folder for this attempt, with ``files`` and ``home`` in it."""

    @abstractmethod
    async def set_apart(self, job: Job, names: Sequence[str]) -> Path:
        """Copy files of this attempt, by name, to a new folder that the process which
        still downloads cannot write to; returns it. ``home`` is beside it; the folder
        from an earlier call goes. What is no regular file is left out."""

    @abstractmethod
    async def forget_attempt(self, job: Job) -> None:
        """Remove the folders of this attempt and of older ones, which are dead."""

    @abstractmethod
    async def cache_folder(self, platform: str) -> Path:
        """The folder for the engines' caches of a platform, "" for any other site."""

    @abstractmethod
    async def place(self, job: Job, files: _Files, folder: Path) -> list[MediaFile]:
        """Move files into a folder, under their final names."""

    @abstractmethod
    async def keep(self, job: Job, files: _Files) -> list[MediaFile]:
        """Move files of a job to where they stay, with what is known of them beside
        them; sets the job's folder, and returns those that are to be posted. What was
        kept before goes, but for files in posts with known sources, and what lies
        beside those."""

    @abstractmethod
    async def sync(self, job: Job) -> None:
        """Return when the kept files of a job would survive a power cut; raises OSError.
        Else a file may be gone or torn then, which ``kept_files`` shows."""

    @abstractmethod
    async def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """Files that ``keep`` left, by name; raises FileNotFoundError if one is gone."""

    async def copy_kept(self, job: Job, folder: Path) -> list[Path]:
        """Copy all files that ``keep`` left of a job into a folder, in order; raises
        OSError if one is not there, or not as it was."""
        raise FileNotFoundError("not offered")

    @abstractmethod
    async def beside(self, job: Job) -> list[MediaFile]:
        """The files that ``keep`` left beside those in posts."""

    @abstractmethod
    def leftovers(self) -> AsyncIterator[Stored]:
        """The folders of attempts."""

    @abstractmethod
    def kept(self) -> AsyncIterator[Stored]:
        """The folders of kept files, guild by guild and day by day."""

    @abstractmethod
    async def forget(self, job: Job) -> None:
        """Remove the files that ``keep`` left of a job, if there are any."""

    @abstractmethod
    async def remove(self, stored: Stored, before: int | None = None) -> None:
        """Remove a folder; of attempts only those with claim numbers up to
        ``before``, unless that is None."""

    @abstractmethod
    async def note(self, guild_id: int, name: str, facts: dict[str, Any]) -> None:
        """Write a small JSON file beside a guild's kept files."""

    @abstractmethod
    async def attempts_bytes(self) -> int:
        """How much the attempts under way take."""


class Database(Part):
    """This machine's own SQLite file. Tables come from ``register_tables``."""

    @abstractmethod
    async def migrate(self, stem: str, scripts: Sequence[str]) -> None:
        """Run the scripts of a plugin that have not been run yet, all or none.

        Raises:
            PluginError: one failed, or a newer plugin has made the tables.
        """

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """All or nothing, one at a time; in it, use only the connection it gives."""

    @abstractmethod
    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """The same in one go, for what is asked often: ``work`` gets the connection in
        the database's thread, and is undone if it raises."""

    @abstractmethod
    async def sync(self) -> None:
        """Return when all that was committed before would survive a power cut; it gets
        there by itself a second later. Raises what writing raises."""

    @abstractmethod
    async def one(self, sql: str, *values: Any, **named: Any) -> sqlite3.Row | None:
        """The first row, or None; a change is committed at once."""

    @abstractmethod
    async def all(self, sql: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        """Every row; a change is committed at once."""


class Facts(Part):
    """Small facts that belong to the bot, on however many machines it runs: limits it
    has learnt, notices it has sent."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._swapping = asyncio.Lock()

    @abstractmethod
    async def get(self, key: str) -> str:
        """The fact's value, "" when there is none."""

    @abstractmethod
    async def set(self, key: str, value: str) -> None:
        """Store a value in place of the old one; "" removes the fact."""

    async def swap(self, key: str, old: str, new: str) -> bool:
        """Store a value if the fact still has the old one, in one step for all
        processes; False if it has another."""
        async with self._swapping:
            if await self.get(key) != old:
                return False
            await self.set(key, new)
            return True


class Guilds(Part):
    """The settings that each server has of its own, a table per plugin. A direct message
    is guild 0. While a guild's are broken, their last good state counts."""

    folder: Path  # of one {guild_id}.toml each, which the owner may edit

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.broken: dict[int, str] = {}  # what is wrong now, by guild
        self.on_broken: Callable[[int, str], None] = lambda guild_id, why: None

    @abstractmethod
    def tables(self, guild_id: int) -> dict[str, Any]:
        """A guild's settings by plugin, as they are stored.

        Raises:
            Refused: they cannot be read, and never could.
        """

    @abstractmethod
    async def set(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str, value: Any
    ) -> PluginConfig:
        """Store one setting of a plugin; returns all of that plugin's.

        Raises:
            Refused: the key or the value is wrong, or the rest is; says so to the
                member.
        """

    @abstractmethod
    async def reset(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str
    ) -> PluginConfig:
        """Drop one setting of a plugin, which then has its default; otherwise as
        ``set``."""


class Queue(Part):
    """Where jobs wait. A claim carries a lease and a number, so that several workers
    can share one queue. Every operation may be done twice, for an answer that was lost.
    Ended jobs stay for a while, and as long as their files are kept. A power cut may take
    back the last changes, in order, but no new job that ``add`` returned, no post that
    ``save`` stored as ``sending``, and no end: those return and are told later."""

    shared = False  # whether other processes use it, too

    @abstractmethod
    async def add(self, job: Job) -> int | None:
        """Commit a new job; returns its place in its guild's line, from 1, or 0 when it
        starts at once. None when its request was taken before, by another job.

        A job that is the ``same`` as an unfinished one joins it: it is never claimed,
        and in one step with that one it ends in the same way, with the same posts. When
        that one is cancelled, or fails by one of OWN_CAUSES, the oldest of each channel
        that has joined it waits in the line, joined by the others there: not everybody
        may see the other channels.

        Raises:
            Refused: it cannot be stored.
            QueueFull: max_queue_size jobs of the guild wait.
        """

    def waits(self) -> bool:
        """Whether a job may wait; False only when it is known that none does."""
        return True

    @abstractmethod
    async def claim(self, worker: str, lease_s: float) -> Job | None:
        """Take the next job, now ``downloading``, with a new claim number; None if there
        is none or every slot of the worker is taken. Highest priority first, then the
        guild with the fewest running, then the oldest; guilds and members that have
        their share running are passed over. Only downloads take a slot; a member who
        has as many jobs being processed is passed over, too."""

    @abstractmethod
    async def save(self, job: Job, lease_s: float) -> bool:
        """Store a claimed job and prolong its lease; False if the claim was lost."""

    @abstractmethod
    async def keep(self, job: Job, lease_s: float) -> bool:
        """Prolong a claimed job's lease and store nothing; False if it was lost."""

    @abstractmethod
    async def release(self, job: Job, delay_s: float = 0) -> bool:
        """Give a claimed job back to wait, for at least ``delay_s``; False if the claim
        was lost. After it the claim guards nothing."""

    @abstractmethod
    async def finish(self, job: Job) -> bool:
        """Store a claimed job that is completed, failed or cancelled, with what it
        ``joins`` if its files are there already; False if the claim was lost. After it
        the claim guards nothing."""

    @abstractmethod
    async def get(self, job_id: str) -> Job | None:
        """A job as it is stored."""

    @abstractmethod
    async def find(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of some jobs that are stored, by id."""

    @abstractmethod
    async def list(
        self,
        guild_id: int | None = None,
        statuses: Sequence[Status] = (),
        since: float = 0,
        limit: int = 0,
    ) -> list[Job]:
        """Jobs in the order they came: of one guild or all, of some statuses or all,
        and of those that have ended only what ended at ``since`` or later, of that the
        last ``limit``; 0 for all."""

    @abstractmethod
    def ended(self, since: float = 0) -> AsyncIterator[Job]:
        """Jobs that ended at ``since`` or later, in that order; however many there
        are, only a few are read at a time."""

    @abstractmethod
    def untold(self) -> AsyncIterator[Job]:
        """Jobs, unfinished ones among them, that ``set_told`` has not been called for;
        a few are read at a time."""

    @abstractmethod
    async def set_told(self, job_ids: Sequence[str]) -> None:
        """Remember that the members were told how some jobs ended."""

    @abstractmethod
    async def position(self, job_id: str) -> int:
        """A waiting job's place in its guild's line, from 1; 0 when it does not wait."""

    @abstractmethod
    async def move(self, job_id: str, priority: Priority) -> bool:
        """Change a waiting job's priority; False when it does not wait."""

    @abstractmethod
    async def cancel(self, job_id: str, waiting_only: bool = False) -> Job | None:
        """Make a waiting or running job ``cancelled``; its worker finds out by the
        change. None when it was uploading or had ended, or with ``waiting_only`` when
        it had begun."""

    @abstractmethod
    async def count(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> tuple[int, int]:
        """How many jobs there are of a guild, a member, or a member in a guild, and how
        many bytes of their files are kept."""

    @abstractmethod
    async def forget(
        self, guild_id: int | None = None, user_id: int | None = None
    ) -> Sequence[Job]:
        """Remove ended jobs of a guild, a member, or a member in a guild: some of them;
        returns them, none when there are no more. Their kept files stay."""

    @abstractmethod
    async def set_status_message(self, job_id: str, message_id: int) -> None:
        """Remember which message shows a job's progress; no claim guards it."""

    @abstractmethod
    async def forget_files(self, job_id: str) -> None:
        """Store that a job's kept files are gone."""

    @abstractmethod
    async def recover(self, worker: str, lease_s: float) -> Sequence[Job]:
        """Give back what an earlier process of this worker held, and return, claimed
        anew, what it was uploading."""

    @abstractmethod
    async def report(self, job: Job, progress: Progress) -> None:
        """Pass on how far a job is; may be lost."""

    @abstractmethod
    def changes(self) -> AsyncIterator[Change | None]:
        """Every change of every job as it is committed, whichever process wrote it, and
        what ``report`` passes on. None at first and now and then, since a delayed job
        may be due. Ends, with nothing left out, when the queue is stopped."""


class Client(Part):
    """The connection to Discord. ``start`` logs in; ``run`` connects to the gateway."""

    bot: BossBot

    @abstractmethod
    async def run(self) -> None:
        """Take commands until the connection is closed for good.

        Raises:
            StartError: Discord does not accept the token or the intents.
        """

    @abstractmethod
    async def answer(
        self, job: Job, text: str, view: discord.ui.View | None = None
    ) -> int:
        """Answer the request of a job, in its interaction, as a reply, or in the
        channel; returns the message's id. Raises what discord.py raises."""

    @abstractmethod
    async def install(self, plugin: Plugin) -> None:
        """Add a plugin's commands; all of them, or none and the plugin is off."""

    @abstractmethod
    async def uninstall(self, stem: str) -> None:
        """Remove the commands of a plugin, if it has any."""

    @abstractmethod
    async def sync(self, again: bool = False) -> bool:
        """Tell Discord about the slash commands if they have changed, or ``again``;
        False when it does not accept them."""


class Courier(Part):
    """Brings files to where they were asked for."""

    @abstractmethod
    async def limit_bytes(self, job: Job) -> int:
        """The most bytes of one file that the job's channel takes now."""

    @abstractmethod
    async def freeze(self, job: Job, files: _Files, fetched: Fetched) -> None:
        """Decide which messages files are posted as; adds to the job's posts. While the
        job is being downloaded, more files are to come.

        Raises:
            JobFailed: no file fits the channel.
        """

    def split(self, files: _Files) -> list[list[MediaFile]]:
        """The files of each message, in order; all but the last one are full, and may be
        posted while more files come."""
        return [list(files)]

    @abstractmethod
    async def post(self, job: Job) -> None:
        """Send what is not sent yet, each message guarded by the job's claim.

        Raises:
            JobFailed: it cannot be posted, or the claim was lost.
            FileNotFoundError: a kept file is gone, not as it was, or too large by what
                is known now; worth another download if no file was posted.
        """


class Passage(NamedTuple):
    """A piece of a post's text."""

    text: str
    source: str = "file"  # or "title", "text", "subtitles", "ocr", "speech"...
    start_s: float | None = None  # when it is said in the video or sound


class Archive(Part):
    """The memory of what was posted. This one remembers nothing: it takes the place of
    one that no plugin offers."""

    remembers = False  # whether it can be searched


class Worker(Part):
    """Carries jobs from the queue to their channels."""

    lease_s = 60.0  # of its claims
    name = ""  # in the queue, the same after a restart; "" while it does not work
    running: Collection[str] = ()  # the ids of the jobs that it has now

    @abstractmethod
    async def fetch(self, job: Job, on_progress: _OnProgress) -> Fetched:
        """One attempt at a job's files: downloaded and checked, not processed; sets the
        job's facts. Raises JobFailed when there is neither a file nor text."""

    @abstractmethod
    async def complete(self, job: Job, on_progress: _OnProgress) -> Fetched:
        """A job's files, downloaded and processed here and now, with the tries that a
        queued job gets. Raises JobFailed."""


# In the order in which they stand above and start; they stop in the reverse one.
PARTS: dict[str, type[Part]] = {
    part.__name__.lower(): part for part in Part.__subclasses__()
}

# ── Settings ───────────────────────────────────────────────────────────────────────

HERE = Path(__file__).resolve().parent

# A path in a setting starts at this file's folder, whatever the working directory.
OwnPath = Annotated[Path, AfterValidator(lambda path: HERE / os.path.expanduser(path))]


# What a server's setting may hold besides plain values: /settings takes and shows these
# as mentions and names.
RoleId = Annotated[int, Field(gt=0), "role"]
ChannelId = Annotated[int, Field(gt=0), "channel"]
UserId = Annotated[int, Field(gt=0), "user"]
PlatformName = Annotated[str, "platform"]

MAX_NUMBER = 2**62  # sums of two still fit where 64 bits are all there is
MAX_DEPTH = 50  # of tables and lists in each other
TOO_LARGE = f"the number is too large; {MAX_NUMBER:,} is more than enough"
TOO_DEEP = f"tables and lists are nested too deep, over {MAX_DEPTH} levels"


def _is_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    values = value.values() if isinstance(value, dict) else value
    inside = values if isinstance(value, (dict, list)) else ()
    return levels < 0 or any(_is_deep(one, levels - 1) for one in inside)


def _checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """A setting's value, checked also for numbers that are too much for later."""
    try:
        found = check(value)
    except OverflowError:
        raise ValueError(TOO_LARGE) from None
    for one in found if isinstance(found, (list, tuple, set)) else [found]:
        if isinstance(one, (int, float)) and not abs(one) < MAX_NUMBER:
            raise ValueError(TOO_LARGE)
    return found


class PluginConfig(BaseModel):
    """The base of a plugin's ``Config``, its settings in ``[plugins.<stem>]``, and of
    its ``GuildConfig``, the settings that each server has of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _from_variable(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """A value, checked; lists and tables in the environment are JSON."""
        try:
            return _checked(value, check)
        except ValidationError:
            if not isinstance(value, str) or not value.startswith(("[", "{")):
                raise
        with contextlib.suppress(RecursionError):
            if not _is_deep(table := json.loads(value)):
                return _checked(table, check)
        raise ValueError(TOO_DEEP)

    def within(self, config: Any, settings: Settings) -> Self:
        """A server's settings as they count: with the owner's value where the server
        has none (None), and never beyond what the owner's allow. Yours to override."""
        return self


class PlatformConfig(PluginConfig):
    """What the owner can set for every platform."""

    cookies_file: OwnPath | None = Field(None, description="an account's cookies.txt")
    proxy: str | None = Field(None, description="a proxy for this site only")
    sleep_request_s: float = Field(0, ge=0, description="pause between two requests")
    options: dict[str, Any] = Field({}, description="the engine's own options")


class Settings(BaseModel):
    """The settings of the core; ``config.toml`` explains each."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, frozen=True, hide_input_in_errors=True
    )

    discord_token: SecretStr | None = Field(
        None, description="the bot's token; only in .env or the environment"
    )
    data_dir: OwnPath = Field(
        Path("data"), description="holds the queue, files and logs; needs room"
    )
    plugins_dir: OwnPath = Field(
        Path("plugins"), description="the folder of your own plugins"
    )
    disabled_plugins: list[str] = Field([], description="names of plugins, without .py")
    max_concurrent_downloads: int = Field(
        5, ge=1, le=100, description="downloads at once on this machine"
    )
    max_concurrent_per_guild: int = Field(
        3, ge=1, le=100, description="downloads at once for one server"
    )
    max_concurrent_per_user: int = Field(
        2, ge=1, le=100, description="downloads at once for one member"
    )
    max_queue_size: int = Field(50, ge=1, description="links waiting, per server")
    max_items: int = Field(
        50, ge=1, description="files per link; a longer gallery is cut"
    )
    max_download_size: ByteSize = Field(
        ByteSize(200 * 2**20), description="of one source file"
    )
    max_job_size: ByteSize = Field(
        ByteSize(500 * 2**20), description="of all source files of a link"
    )
    max_file_size: ByteSize = Field(
        ByteSize(50 * 2**20), description="of one posted file"
    )
    process_timeout_s: float = Field(
        1800, gt=0, description="how long one plugin may process a link's files"
    )
    allow_writable_plugins: bool = Field(
        False, description="start even if anyone on this machine can change plugins"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="of the console; the log file always has every detail"
    )
    log_retention_days: int = Field(
        14, ge=1, le=36500, description="how long log files are kept"
    )
    max_log_size: ByteSize = Field(
        ByteSize(100 * 2**20), description="of all log files; the oldest go first"
    )
    trace_hooks: bool = Field(
        False, description="log every call of a hook; for writing plugins"
    )
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="a table for each plugin"
    )

    _in_words = field_validator("*", mode="wrap")(_checked)


_FIELDS = tuple(Settings.model_fields)


class _Source(NamedTuple):
    """A place that settings come from."""

    name: str
    values: dict[str, Any]
    text: str = ""  # of a file, to name the line of a mistake


def load_settings(config: Path | None = None, root: Path = HERE) -> Settings:
    """The settings from environment, ``.env`` and files, the stronger first.

    Args:
        config: a file in place of ``config.toml``.
        root: where ``.env`` and ``config.toml`` are.

    Raises:
        StartError: names every wrong value with its place and what was expected.
    """
    if config and not config.is_file():
        raise StartError(f"{config}: no such file. --config takes a TOML file.")
    dotenv, path = root / ".env", config or root / "config.toml"
    if not path.is_file():
        print(f"{path} is missing: every setting has its default", file=sys.stderr)
    main = _read_toml(path)
    try:
        sources = list(_read_variables(dotenv))
        if _is_deep([source.values for source in sources]):
            raise ValueError(TOO_DEEP)
    except (ValueError, OSError, RecursionError) as error:
        why = TOO_DEEP if isinstance(error, RecursionError) else error
        raise StartError(
            f"The environment or {dotenv}: {why}. Lists and tables in a variable are "
            'JSON: ["a", "b"]. One setting of a plugin is BOSS_BOT_PLUGINS__NAME__KEY.'
        ) from None
    early = _merge(*(source.values for source in (main, *reversed(sources))))
    data = root / os.path.expanduser(str(early.get("data_dir", "data")))
    sources += [_read_toml(data / "config.toml"), main]
    problems = []
    for name, values, _ in sources[1:]:
        if any(secret_values(values)) and (done := make_private(Path(name))):
            print(done, file=sys.stderr)
        if "discord_token" in values and name != str(dotenv):
            problems.append(f"{name}: discord_token belongs in .env, not in this file")
    for variable in os.environ:  # pydantic-settings finds those in .env by itself
        key = variable.lower().removeprefix("boss_bot_")
        known = key in _FIELDS or key.startswith("plugins__")
        if variable.upper().startswith("BOSS_BOT_") and not known:
            hint = did_you_mean(key, _FIELDS)
            problems.append(f"the environment: unknown {variable}{hint}")
    try:
        settings = Settings(**_merge(*(source.values for source in reversed(sources))))
    except ValidationError as error:
        problems += explain(error, sources=sources)
    if problems:
        raise StartError("\n".join(["The settings have mistakes:", *problems]))
    return settings


def _read_variables(dotenv: Path) -> Iterable[_Source]:
    """What the environment and a file of variables set; raises ValueError."""
    import pydantic_settings  # here: the downloads' processes would carry it along

    class Variables(Settings, pydantic_settings.BaseSettings):
        model_config = pydantic_settings.SettingsConfigDict(
            env_prefix="BOSS_BOT_",
            env_nested_delimiter="__",
            env_ignore_empty=True,
            dotenv_filtering="match_prefix",
        )

    yield _Source("the environment", pydantic_settings.EnvSettingsSource(Variables)())
    source = pydantic_settings.DotEnvSettingsSource(Variables, env_file=dotenv)
    yield _Source(str(dotenv), source())


def _read_toml(path: Path) -> _Source:
    try:
        text = path.read_text("utf-8-sig")  # Windows' editors write a mark first
        values = _merge(*({k.lower(): v} for k, v in parse_toml(text).items()))
        return _Source(str(path), values, text)
    except (FileNotFoundError, NotADirectoryError):
        return _Source(str(path), {})
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise StartError(f"{path}: {error}. Correct it and start again.") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML file; raises ValueError."""
    with contextlib.suppress(RecursionError):
        tables = tomllib.loads(text)
        if not _is_deep(tables):
            return tables
    raise ValueError(TOO_DEEP)


def _merge(*tables: dict[str, Any]) -> dict[str, Any]:
    """One table of several, the weaker first; tables in them are merged as well."""
    merged: dict[str, Any] = {}
    for key, value in (item for table in tables for item in table.items()):
        inside: Any = merged.get(key)
        both = isinstance(inside, dict) and isinstance(value, dict)
        merged[key] = _merge(inside, value) if both else value
    return merged


def explain(
    error: ValidationError,
    known: Iterable[str] = _FIELDS,
    sources: Sequence[_Source] = (),
) -> list[str]:
    """A line for each wrong value: file, line, key, what was expected."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        wrong = item["msg"].removeprefix("Value error, ")
        if item["type"].startswith("byte_size"):
            wrong = "that is no size; write one such as 20MiB"
        if item["type"] == "extra_forbidden":
            wrong = f"no such setting{_hint(path[-1], item['input'], known, sources)}"
        places = (_place(source, path) for source in sources)
        said = ": ".join(filter(None, (".".join(path), wrong)))
        lines.append(f"{next(filter(None, places), '')}{said}")
    return lines


def _hint(
    key: str, value: Any, known: Iterable[str], sources: Sequence[_Source]
) -> str:
    """Where an unknown setting may belong, or what it may be called."""
    if known is not _FIELDS:
        its = "; it belongs above the first table of data/config.toml"
        return its if key in _FIELDS else did_you_mean(key, known)
    if isinstance(value, dict):
        return f"; the table of a plugin is [plugins.{key}]"
    row = rf"^(\[plugins\.\w+\])\n(?:(?!\[).*\n)*?(?:# )?{re.escape(key)} = "
    tables = (re.search(row, source.text, re.MULTILINE) for source in sources)
    table = next(filter(None, tables), None)
    return f"; it belongs below {table[1]}" if table else did_you_mean(key, known)


def _place(source: _Source, path: Sequence[str]) -> str:
    """ "config.toml, line 3: ", or "" when the source does not set that key."""
    inside: Any = source.values
    for part in path:
        if isinstance(inside, dict):
            if part not in inside:
                return ""
            key, inside = re.escape(part), inside[part]
    for number, line in enumerate(source.text.splitlines(), 1):
        if re.match(rf"""\s*\[*(plugins\.)?["']?(?i:{key})["']?\s*[=.\]]""", line):
            return f"{source.name}, line {number}: "
    return f"{source.name}: "


def make_private(path: Path) -> str:
    """Close a file with secrets to everybody but its owner; returns what was done, ""
    if it was closed. Raises OSError if there is none."""
    if not path.stat().st_mode & 0o77:
        return ""
    try:
        path.chmod(0o600)
        done = "set to 0600"
    except OSError as error:  # it belongs to somebody else
        done = f"chmod 600 failed ({error.strerror})"
    return f"{path} was readable by others: {done}"


# ── Hooks ──────────────────────────────────────────────────────────────────────────

hookspec = pluggy.HookspecMarker("bossbot")
hookimpl = pluggy.HookimplMarker("bossbot")

# A check that breaks refuses, and is never switched off for it.
VETOES = ("check_action", "check_job", "check_claim", "check_attempt", "check_upload")
NO_LINKS = N_("I cannot take links now: the queue is out of reach or full.")
BROKEN_CHECK = N_(
    "A check of this bot is broken; its owner finds the reason in the log."
)
BROKEN_GUILD = N_(
    "This server's settings cannot be read. The bot's owner finds the reason in the log."
)
QUICK_HOOKS = (*VETOES, "answer_job")
# What a hook may say by raising it; from others it is a failure.
MAY_SAY: dict[str, tuple[type[Exception], ...]] = {
    **dict.fromkeys(QUICK_HOOKS, (Refused,)),
    "process_files": (Refused, JobFailed),
}
MAX_HOOK_FAILURES = 5  # of one hook in a row; then the plugin is switched off


class Hooks(Protocol):
    """Every hook. A plugin implements any of them as a function of the same name with
    ``@hookimpl`` and takes only the arguments it uses. Each may also ask for ``app``,
    ``settings``, ``config`` (the plugin's own settings) and, where there is a job or an
    action, ``guild`` (its server's settings of this plugin). Registration hooks are plain
    functions; the others are ``async def``, or plain functions that run in a thread."""

    # At load

    @hookspec
    def register_engines(self) -> list[Engine]:
        """Return ways to download."""

    @hookspec
    def register_platforms(self) -> list[Platform]:
        """Return sites known by name."""

    @hookspec
    def register_subcommands(self) -> list[Subcommand]:
        """Return commands of the command line."""

    @hookspec
    def register_parts(self) -> dict[str, Callable[[App], Part]]:
        """Return makers of parts by name; those of own plugins come before ours."""

    @hookspec
    def register_tables(self) -> list[str]:
        """Return SQL scripts, one for each version of your tables; append new ones."""

    @hookspec
    def register_commands(self, bot: BossBot) -> list[Any]:
        """Return cogs, commands, context menus and dynamic items; called after login."""

    @hookspec
    def register_metrics(self, registry: CollectorRegistry) -> None:
        """Return nothing; called while metrics are on, to add yours to the registry."""

    # While the plugin is on

    @hookspec
    def run(self) -> None:
        """Return when you are done; cancelled when the plugin or the app ends."""

    # A link comes

    @hookspec
    def check_action(self, action: Action) -> None:
        """Raise Refused("why") to veto a command or a click; called before it runs."""

    @hookspec
    def action_refused(self, action: Action) -> None:
        """Return nothing; called when a command that check_action let pass said no."""

    @hookspec
    def check_job(self, job: Job) -> None:
        """Raise Refused("why") to veto a job; called before it is queued."""

    @hookspec
    def job_refused(self, job: Job) -> None:
        """Return nothing; called when a job is not queued, whatever check_job said."""

    @hookspec(firstresult=True)
    def answer_job(self, job: Job) -> str | Message | None:
        """Return an answer in place of a download, or None; called after check_job."""

    # It is worked on

    @hookspec
    def check_claim(self) -> None:
        """Raise Refused("why") to start no job now; called before each claim."""

    @hookspec
    def check_attempt(self, job: Job) -> None:
        """Raise Refused("why") to fail a claimed job; called before it is fetched."""

    @hookspec(firstresult=True)
    def find_posted(self, job: Job) -> Job | None:
        """Return an earlier job whose post is here; called once a short link is resolved."""

    @hookspec
    def process_files(
        self, job: Job, files: list[MediaFile], bench: Bench
    ) -> list[MediaFile]:
        """Return the new list of files; called in turn after the download."""

    @hookspec
    def job_progressed(self, job: Job, progress: Progress) -> None:
        """Return nothing; called a few times a second while a job is worked on."""

    # It is posted

    @hookspec
    def check_upload(
        self, job: Job, files: list[MediaFile], channel: discord.abc.Messageable
    ) -> None:
        """Raise Refused("why") to veto a message; called just before it is sent."""

    @hookspec
    def decorate_message(self, job: Job, message: Message) -> Message:
        """Return the message with what you add to it; called before each is sent."""

    @hookspec(firstresult=True)
    def deliver_file(self, job: Job, file: MediaFile) -> str | None:
        """Return a text (a link) for a file too large to upload, or None."""

    # Always

    @hookspec
    def job_changed(self, job: Job, previous: Status | None) -> None:
        """Return nothing; called after each committed change of a job, in order."""

    @hookspec
    def extract_text(self, job: Job, file: MediaFile) -> list[Passage]:
        """Return what is written, said or shown in a posted file, to be found by it."""

    @hookspec
    def forget_downloads(self, guild_id: int | None, user_id: int | None) -> None:
        """Return when nothing is left of the downloads of a guild and a member."""

    @hookspec
    def check_machine(self) -> list[Finding]:
        """Return what is missing on this machine; called by ``check``."""


HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))


# ── Plugins: find, load, call ──────────────────────────────────────────────────────

PLUGIN_PACKAGE = "bossbot_plugins"  # so that a plugin queue.py shadows nothing
OURS = HERE / "plugins"
SHELVES = ("parts", "engines", "platforms", "processors", "chat", "owner")


@dataclass
class Plugin:
    """A plugin that was found, and what has become of it."""

    stem: str
    path: Path  # a .py file, or the __init__.py of a folder
    kind: str = "own"  # or the shelf it lies on
    replaces: bool = False  # the owner's, in place of one of ours
    off: str = ""  # why it is switched off; "" while it is on
    config: PluginConfig = field(default_factory=PluginConfig)
    guild_config: type[PluginConfig] = PluginConfig
    usual: PluginConfig = field(default_factory=PluginConfig)  # where a guild has none
    impls: dict[str, pluggy.HookImpl] = field(default_factory=dict)  # by hook
    failures: Counter[str] = field(default_factory=Counter)  # in a row, by hook
    engines: list[Engine] = field(default_factory=list)
    platforms: list[Platform] = field(default_factory=list)
    subcommands: list[Subcommand] = field(default_factory=list)
    parts: dict[str, Callable[[App], Part]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    modules: dict[str, types.ModuleType] = field(default_factory=dict)  # see put_back

    @property
    def hooks(self) -> list[str]:
        return list(self.impls)

    @property
    def origin(self) -> str:
        if self.kind != "own":
            return "ours"
        return "yours, in place of ours" if self.replaces else "yours"


def plugin_folders(plugins_dir: Path, ours: Path = OURS) -> list[Path]:
    """Where plugins and their libraries are looked for, the owner's folder first."""
    return [plugins_dir, *(ours / shelf for shelf in SHELVES)]


def find_plugins(plugins_dir: Path, ours: Path = OURS) -> dict[str, Plugin]:
    """The plugins by stem, in order: ours, and the owner's, which take the place of
    ours of the same name."""
    found: dict[str, Plugin] = {}
    for folder in reversed(plugin_folders(plugins_dir, ours)):
        kind = "own" if folder == plugins_dir else folder.name
        for path in [*folder.glob("[!_.]*.py"), *folder.glob("[!_.]*/__init__.py")]:
            stem = path.parent.name if path.name == "__init__.py" else path.stem
            known = found.get(stem)
            replaces = bool(known and (known.replaces or known.kind != kind))
            found[stem] = Plugin(stem, path, kind, replaces)
    return dict(sorted(found.items()))


def writable_code(settings: Settings, folders: Sequence[Path]) -> str:
    """What anyone on this machine may write to, and the remedy: of the bot's own code,
    of what can be imported from folders, and of the folders that these are in. "" for
    nothing, or if the owner allows it."""
    if settings.allow_writable_plugins:
        return ""
    code = {HERE, HERE / "bossbot.py", HERE / "config.toml", HERE / "plugins", *folders}
    for path in [path for folder in folders for path in folder.glob("*")]:
        if path.suffix in (".py", ".so"):
            code.add(path)
        elif path.name == "__pycache__" or (path / "__init__.py").exists():
            code |= {path, *path.rglob("*")}
    found = []
    for path in sorted(code):
        with contextlib.suppress(OSError):  # it may be missing
            if path.stat().st_mode & stat.S_IWOTH:
                found.append(str(path))
    if not found:
        return ""
    both = shlex.join(map(str, (HERE, settings.plugins_dir)))
    return (
        f"{', '.join(found[:5])}: anyone on this machine can write there, and so run "
        f"code as you. Run: chmod -R o-w {both} "
        "(or set allow_writable_plugins)."
    )


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:  # it may be a link that leads nowhere
        return False


def open_plugins(folders: Iterable[Path | str]) -> None:
    """Make ``bossbot_plugins`` the package of these folders, with nothing imported."""
    for name in [name for name in sys.modules if _in_plugins(name)]:
        del sys.modules[name]
    package = types.ModuleType(PLUGIN_PACKAGE, "The plugins and their libraries.")
    package.__path__ = [str(folder) for folder in folders]
    sys.modules[PLUGIN_PACKAGE] = package


def import_plugin(stem: str) -> types.ModuleType:
    """Run a plugin as ``bossbot_plugins.<stem>``, afresh from disk."""
    forget_plugin(stem)
    return importlib.import_module(f"{PLUGIN_PACKAGE}.{stem}")


def forget_plugin(stem: str) -> dict[str, types.ModuleType]:
    """Have a plugin, its own modules and the libraries read from disk by the next
    import; returns those of now. Otherwise all plugins share a library."""
    name, forgotten = f"{PLUGIN_PACKAGE}.{stem}", {}
    for known in [known for known in sys.modules if _in_plugins(known)]:
        if f"{known}.".startswith((f"{name}.", f"{PLUGIN_PACKAGE}._")):
            forgotten[known] = sys.modules.pop(known)
            # Else "from bossbot_plugins import _x" would find it there.
            parent, _, child = known.rpartition(".")
            vars(sys.modules.get(parent, types)).pop(child, None)
    for folder in sys.modules[PLUGIN_PACKAGE].__path__:  # files may be new there
        if finder := sys.path_importer_cache.get(folder):
            finder.invalidate_caches()  # type: ignore[attr-defined]
    return forgotten


def _in_plugins(module: str) -> bool:
    return f"{module}.".startswith(f"{PLUGIN_PACKAGE}.")


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of a function that may block, from a thread of its own: a plugin that
    blocks for ever takes no place from others, nor does it keep the bot from ending."""
    result: Future[Any] = Future()
    result.set_running_or_notify_cancel()

    def body() -> None:
        try:
            result.set_result(work())
        except StopIteration as error:  # no future takes it
            result.set_exception(RuntimeError(repr(error)))
        except BaseException as error:  # SystemExit, too, is for the caller
            result.set_exception(error)

    _thread.start_new_thread(body, ())  # which threading's own would wait for
    return await asyncio.wrap_future(result)


@dataclass(slots=True)
class _HookCall:
    """A call of a hook, while it lasts."""

    limit: asyncio.Timeout
    over: bool = False


_hook_call: ContextVar[_HookCall | None] = ContextVar("call", default=None)


def time_left_s() -> float | None:
    """How long the hook that asks may still take; None for no limit."""
    call = _hook_call.get()
    due_s = call.limit.when() if call else None
    return None if due_s is None else due_s - asyncio.get_running_loop().time()


@contextlib.contextmanager
def off_the_clock() -> Iterator[None]:
    """Time that a hook spends in here does not count for its limit."""
    call, left_s = _hook_call.get(), time_left_s()
    if call is None or left_s is None:
        yield
        return
    call.limit.reschedule(None)
    try:
        yield
    finally:
        call.limit.reschedule(asyncio.get_running_loop().time() + left_s)


class HookManager(pluggy.PluginManager):
    """One that looks for hooks among the names of hooks only."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name in HOOKS else None


class Plugins:
    """The plugins, what they registered, and the calls to their hooks."""

    quick_limit_s = 5.0  # for one call of a QUICK_HOOKS
    limit_s = 30.0  # of another; process_files has a setting

    def __init__(self, app: App, ours: Path = OURS) -> None:
        self.app = app
        self.ours = ours
        self.manager = HookManager("bossbot")
        self.manager.add_hookspecs(Hooks)
        for name in HOOKS:
            spec: Any = getattr(self.manager.hook, name).spec
            more = () if {"job", "action"}.isdisjoint(spec.argnames) else ("guild",)
            spec.argnames += ("app", "config", "settings", *more)
        self.all: dict[str, Plugin] = {}
        self.of = weakref.WeakKeyDictionary[Any, Plugin]()  # by module
        self.on_off: Callable[[Plugin], None] = lambda plugin: None
        self.failed_ever = Counter[tuple[str, str]]()  # by plugin and hook
        # Told of each call: plugin, hook, how long it took, what the answer was, and
        # the job or action that it was about.
        self.on_call: Callable[[str, str, float, Any, Any], None] | None = None

    @property
    def settings(self) -> Settings:
        return self.app.settings

    def registered(self, kind: str) -> dict[str, Any]:
        """Everything of a kind (engines, platforms, subcommands) by name, in order."""
        things = [t for plugin in self.all.values() for t in getattr(plugin, kind)]
        return {thing.name: thing for thing in sorted(things, key=lambda t: t.name)}

    def load(self, mentioning: str = "") -> None:
        """Load every plugin, or only those whose text mentions something; a bad one is
        off, and the others run.

        Raises:
            StartError: the owner's folder is missing, or anyone may write to it.
        """
        own = self.settings.plugins_dir
        for folder in {own, self.ours}:
            if not folder.is_dir():
                raise StartError(
                    f"{folder} is missing. Set plugins_dir, or restore it."
                )
        folders = plugin_folders(own, self.ours)
        if remedy := writable_code(self.settings, folders):
            raise StartError(remedy)
        open_plugins(folders)
        for plugin in find_plugins(own, self.ours).values():
            if not mentioning or _mentions(plugin.path, mentioning):
                self._load(plugin)
        if mentioning:
            return
        engines = self.registered("engines")
        for platform in self.registered("platforms").values():
            if platform.engine not in engines:
                hint = did_you_mean(platform.engine, engines)
                logger.warning(
                    "{}: no engine {}{}", platform.name, platform.engine, hint
                )
        named = {*self.settings.plugins, *self.settings.disabled_plugins}
        for stem in sorted(named - self.all.keys()):
            hint = did_you_mean(stem, self.all)
            logger.warning(
                "the settings name a plugin {} that is missing{}", stem, hint
            )

    def reload(self, stem: str) -> Plugin:
        """Load a plugin again, or for the first time: what it registered is replaced
        whole. When that fails, the one that was on stays on, and what is returned says
        why. See ``App.reload``."""
        own = self.settings.plugins_dir
        found = find_plugins(own, self.ours)
        if stem not in found:
            self.switch_off(stem, "its file is gone")
            raise PluginError(f"No plugin {stem}{did_you_mean(stem, found)}")
        if remedy := writable_code(self.settings, plugin_folders(own, self.ours)):
            raise PluginError(remedy)
        old, modules = self.all.get(stem), forget_plugin(stem)
        plugin = self._load(found[stem])
        if old:
            old.modules = modules
        if plugin.off:
            self.put_back(old)
        return plugin

    def put_back(self, old: Plugin | None) -> bool:
        """Have a plugin as it was before a reload, with all that it registered; False,
        and nothing changes, if it was off."""
        if old is None or old.off:
            return False
        self._take_back(old.stem)
        sys.modules.update(old.modules)
        self.all[old.stem] = old
        self.manager.register(old.modules[f"{PLUGIN_PACKAGE}.{old.stem}"], old.stem)
        hide_secrets(old.stem, secret_values(old.config))
        return True

    def _load(self, plugin: Plugin) -> Plugin:
        self._take_back(plugin.stem)
        self.all[plugin.stem] = plugin
        if plugin.stem in self.settings.disabled_plugins:
            plugin.off = "disabled in the settings"
            return plugin
        if plugin.replaces:
            logger.warning("{} takes the place of ours", plugin.path)
        try:
            if "." in plugin.stem:
                raise PluginError("its name has a dot in it: rename the file")
            module = importlib.import_module(f"{PLUGIN_PACKAGE}.{plugin.stem}")
            if (needed := getattr(module, "API", API)) not in range(API + 1):
                raise PluginError(
                    f"it needs version {needed} of the plugin API, and this bot has "
                    f"{API}. Update the bot: git pull"
                )
            self._check_hooks(module)
            self.of[module] = plugin
            self.manager.register(module, plugin.stem)
            plugin.impls = {
                caller.name: impl
                for caller in self.manager.get_hookcallers(module) or ()
                for impl in caller.get_hookimpls()
                if impl.plugin is module
            }
            if not plugin.impls:
                logger.warning("{} has no hooks: it does nothing", module.__name__)
            self._configure(plugin, module)
            self._register(plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a file from elsewhere may raise anything
            self._take_back(plugin.stem, error)
        return self.all[plugin.stem]

    def _take_back(self, stem: str, why: str | BaseException = "") -> None:
        """Take back everything that a plugin registered; what it raised is logged."""
        if isinstance(why, BaseException):
            ours, error = isinstance(why, PluginError), why
            why = str(error) if ours else f"{type(error).__name__}: {error}"
            logger.error("{} is off: {}", stem, redact(why))
            if not ours:
                logger.opt(exception=error).debug("how {} failed", stem)
        if self.manager.has_plugin(stem):
            self.manager.unregister(name=stem)
        if old := self.all.get(stem):
            off = redact(why)
            self.all[stem] = Plugin(stem, old.path, old.kind, old.replaces, off)

    def switch_off(self, stem: str, why: str | BaseException) -> None:
        """Take back everything that a plugin registered, and end its life."""
        old = self.all.get(stem)
        self._take_back(stem, why)
        if old:
            self.on_off(old)

    def _check_hooks(self, module: types.ModuleType) -> None:
        """Raises PluginError for a likely mistake in the hooks of a module."""
        for name, value in vars(module).items():
            options = getattr(value, "bossbot_impl", None)
            if options is None:
                here = getattr(value, "__module__", "") == module.__name__
                if name in HOOKS and inspect.isfunction(value) and here:
                    raise PluginError(
                        f"{name}() is a hook: put @hookimpl above it, or rename it"
                    )
                continue
            if name not in HOOKS:
                raise PluginError(f"no hook {name}(){did_you_mean(name, HOOKS)}")
            if options["wrapper"] or options["hookwrapper"] or options["specname"]:
                raise PluginError(f"{name}(): hook wrappers are not supported")
            if value.__module__ != module.__name__:
                raise PluginError(f"{name}() is imported from another module")
            waits = inspect.iscoroutinefunction(value)
            if name == "run" and not waits:
                raise PluginError("run() must be async def, without yield")
            if name.startswith("register_") and waits:
                raise PluginError(f"{name}() must be a plain function")
            takes = getattr(self.manager.hook, name).spec.argnames
            for argument in inspect.signature(value).parameters:
                if argument not in takes:
                    raise PluginError(
                        f"{name}() has no argument {argument}"
                        f"{did_you_mean(argument, takes)}; it takes {', '.join(takes)}"
                    )

    def _configure(self, plugin: Plugin, module: types.ModuleType) -> None:
        """Check the plugin's settings by its ``Config``, and find its ``GuildConfig``."""
        base = PlatformConfig if "register_platforms" in plugin.hooks else PluginConfig
        model = getattr(module, "Config", base)
        plugin.guild_config = getattr(module, "GuildConfig", PluginConfig)
        for one in (model, plugin.guild_config):
            if not issubclass(one, PluginConfig):
                raise PluginError(f"{one.__name__} must derive from PluginConfig")
        if not issubclass(model, base):
            model = type("Config", (model, base), {})
        try:
            plugin.config = model(**self.settings.plugins.get(plugin.stem, {}))
        except ValidationError as error:
            wrong = "; ".join(explain(error, known=model.model_fields))
            raise PluginError(f"[plugins.{plugin.stem}] {wrong}") from None
        try:
            plugin.usual = plugin.guild_config()
        except ValidationError as error:
            raise PluginError(
                f"GuildConfig: every field needs a default ({'; '.join(explain(error))})"
            ) from None
        hide_secrets(plugin.stem, secret_values(plugin.config))

    def _register(self, plugin: Plugin) -> None:
        """Fill the plugin's registrations; nothing is kept when one is wrong."""
        kinds: dict[str, type] = {
            "engines": Engine,
            "platforms": Platform,
            "subcommands": Subcommand,
        }
        for kind, model in kinds.items():
            for thing in self._given(plugin, f"register_{kind}", list, model):
                if thing.name in self.registered(kind):
                    raise PluginError(f"{kind}: {thing.name!r} is there already")
                getattr(plugin, kind).append(thing)
        for number, platform in enumerate(plugin.platforms):
            if not re.match(platform.pattern, platform.example, re.IGNORECASE):
                raise PluginError(f"{platform.name}: the pattern misses the example")
            common = cast(PlatformConfig, plugin.config)
            cookies_file = common.cookies_file or platform.cookies_file
            with contextlib.suppress(OSError):  # `check` says that it is missing
                if cookies_file and (done := make_private(cookies_file)):
                    logger.warning("{}", done)
            plugin.platforms[number] = dataclasses.replace(
                platform,
                cookies_file=cookies_file,
                proxy=common.proxy or platform.proxy,
                sleep_request_s=common.sleep_request_s or platform.sleep_request_s,
                options={**platform.options, **common.options},
            )
        plugin.parts = self._given(plugin, "register_parts", dict)
        for name, maker in plugin.parts.items():
            if name not in PARTS:
                raise PluginError(f"no part {name!r}{did_you_mean(name, PARTS)}")
            part = getattr(maker, "func", maker)  # of a partial
            if missing := getattr(part, "__abstractmethods__", None):
                names = ", ".join(sorted(missing))
                raise PluginError(f"the part {name} has no {names}")
        plugin.tables = self._given(plugin, "register_tables", list, str)

    def _given(
        self,
        plugin: Plugin,
        hook: str,
        kind: type[list[Any] | dict[str, Any]],
        of: type = str,
    ) -> Any:
        """What a registration hook returns; raises PluginError for another kind."""
        impl = plugin.impls.get(hook)
        answer: Any = self.invoke(impl, plugin) if impl else kind()
        if not isinstance(answer, kind) or not all(isinstance(a, of) for a in answer):
            raise PluginError(
                f"{hook}() must return a {kind.__name__} of {of.__name__}"
            )
        return answer

    def impls(self, hook: str, stem: str | None = None) -> list[pluggy.HookImpl]:
        """Implementations in the order of calls: tryfirst, then by name, trylast."""
        plugins = self.all.values()
        impls = [
            p.impls[hook] for p in plugins if hook in p.impls and stem in (None, p.stem)
        ]
        return sorted(impls, key=lambda i: (i.trylast - i.tryfirst, i.plugin_name))

    def invoke(
        self,
        impl: pluggy.HookImpl,
        plugin: Plugin,
        closed: bool = False,
        **values: Any,
    ) -> Any:
        """Call an implementation with the arguments it asks for; ``closed`` for a check,
        which does not go on with wrong settings."""
        values |= {"app": self.app, "config": plugin.config, "settings": self.settings}
        if "guild" in impl.argnames:
            asked = values.get("job") or values["action"]
            values["guild"] = self.guild_config(plugin, asked, closed)
        name = impl.function.__name__
        if self.settings.trace_hooks and (
            name == "run" or name.startswith("register_")
        ):
            logger.info("{}.{}({})", plugin.stem, name, ", ".join(impl.argnames))
        return impl.function(*(values[name] for name in impl.argnames))

    def guild_config(
        self, plugin: Plugin, asked: Job | Action, closed: bool = False
    ) -> PluginConfig:
        """A plugin's settings of a guild, as they were when the job or the action came;
        those that are wrong count as not set, or are Refused when ``closed``."""
        guild, table = plugin.usual, asked.guild_settings.get(plugin.stem, {})
        try:
            if table != {}:
                guild = plugin.guild_config.model_validate(table)
        except ValidationError as error:
            wrong = "; ".join(explain(error, plugin.guild_config.model_fields))
            guild_id, stem = asked.guild_id, plugin.stem
            logger.warning("guilds/{}.toml: [{}] {}", guild_id, stem, wrong)
            if closed:
                raise Refused(_(BROKEN_GUILD)) from None
        return guild.within(plugin.config, self.settings)

    async def _call(self, impl: pluggy.HookImpl, hook: str, **values: Any) -> Any:
        """One implementation's answer. None when it failed, which is logged with its
        name; a check that failed refuses. Raises what a hook may say: Refused,
        JobFailed."""
        plugin, began_s = self.of[impl.plugin], time.perf_counter()
        limit_s = self.quick_limit_s if hook in QUICK_HOOKS else self.limit_s
        if hook == "process_files":
            limit_s = self.settings.process_timeout_s
        said = MAY_SAY.get(hook, ())
        hook_call = _HookCall(asyncio.timeout(limit_s))
        of_task = _hook_call.set(hook_call)
        work = partial(self.invoke, impl, plugin, hook in VETOES, **values)
        answer: Any = None
        try:
            async with hook_call.limit:
                waits = inspect.iscoroutinefunction(impl.function)
                answer = await (work() if waits else in_thread(work))
                if inspect.isawaitable(answer):  # of a decorated function
                    answer = await answer
            if isinstance(answer, Refused) and said:  # returned in place of raised
                raise answer
            if hook in VETOES and answer is not None:  # meant as a no, perhaps
                kind = type(answer).__name__
                raise TypeError(f"it returned a {kind}. To veto, raise Refused")
        except said as error:
            answer = error
            raise
        # The boundary of a plugin: its failure must not become the job's.
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            answer, task = error, asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise  # it is the caller that ends
            if hook_call.limit.expired():
                answer = error = TimeoutError(f"it took longer than {limit_s:g} s")
            if not self.app.stopping.is_set():  # else what it waits for may be gone
                self.failed(plugin, hook, error)
            if hook in VETOES:
                raise Refused(_(BROKEN_CHECK)) from error
            return None
        finally:
            hook_call.over = True
            _hook_call.reset(of_task)
            if not isinstance(answer, BaseException) or isinstance(answer, said):
                plugin.failures.pop(hook, None)
            took_s = time.perf_counter() - began_s
            if self.on_call:
                about = values.get("job") or values.get("action")
                self.on_call(plugin.stem, hook, took_s, answer, about)
            if self.settings.trace_hooks:
                names, kind = ", ".join(impl.argnames), type(answer).__name__
                text = "{}.{}({}): {}, {:.1f} ms"
                logger.info(text, plugin.stem, hook, names, kind, took_s * 1000)
        return answer

    def failed(self, plugin: Plugin, hook: str, error: BaseException) -> bool:
        """Count a failure of a hook; True when it was one too many. A plugin with checks
        loses only that hook, since a check never goes away by itself. What is out of
        reach is no failure of the plugin's."""
        if isinstance(error, OutOfReach):
            logger.warning("plugin {} could not do {}: {}", plugin.stem, hook, error)
            return False
        plugin.failures[hook] += 1
        self.failed_ever[plugin.stem, hook] += 1
        what = f"{type(error).__name__}: {error}"
        known = plugin.failures[hook] > MAX_HOOK_FAILURES or not error.__traceback__
        log = logger if known else logger.opt(exception=error)
        log.error("plugin {} failed in {}: {}", plugin.stem, hook, what)
        if hook in VETOES or plugin.failures[hook] < MAX_HOOK_FAILURES:
            return False
        if self.all.get(plugin.stem) is not plugin:  # it has been loaded again
            return True
        if not set(plugin.hooks).isdisjoint(VETOES):
            if plugin.impls.pop(hook, None):  # not by a call at the same time
                logger.error(
                    "{} of plugin {} is switched off: {}", hook, plugin.stem, what
                )
            return True
        logger.error("plugin {} is switched off: {}", plugin.stem, what)
        self.switch_off(plugin.stem, f"{hook} failed too often: {what}")
        return True

    async def call(self, hook: str, **values: Any) -> list[Any]:
        """The answers of all plugins that gave one, in order."""
        answers = [await self._call(i, hook, **values) for i in self.impls(hook)]
        return [answer for answer in answers if answer is not None]

    async def call_first(self, hook: str, **values: Any) -> Any:
        """The first answer that is not None."""
        for impl in self.impls(hook):
            if (answer := await self._call(impl, hook, **values)) is not None:
                return answer
        return None

    async def fold(self, hook: str, folded: str, **values: Any) -> Any:
        """What is left of ``values[folded]`` when each plugin has changed it."""
        for impl in self.impls(hook):
            answer = await self._call(impl, hook, **values)
            if isinstance(answer, type(values[folded])):
                values[folded] = answer
            elif answer is not None:
                wrong = TypeError(f"it returned a {type(answer).__name__}")
                self.failed(self.of[impl.plugin], hook, wrong)
        return values[folded]


# ── The app: intake, feed, start and stop ──────────────────────────────────────────

# What plugins have started, by stem, and in which call of a hook.
_Tasks = weakref.WeakKeyDictionary[asyncio.Task[Any], _HookCall | None]
_started: defaultdict[str, _Tasks] = defaultdict(weakref.WeakKeyDictionary)


def _start_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> asyncio.Task[Any]:
    """The loop's task factory: a task belongs to the plugin whose code starts it, so
    that it can end with the plugin."""
    task = asyncio.Task(work, loop=loop, **options)
    frame = sys._getframe(1).f_back
    while frame and (name := frame.f_globals.get("__name__", "")) != __name__:
        package, _, stem = name.partition(".")
        if package == PLUGIN_PACKAGE and stem[:1] != "_":  # a library is its caller's
            _started[stem.partition(".")[0]][task] = _hook_call.get()
            break
        frame = frame.f_back
    return task


_P = TypeVar("_P", bound=Part)


def _part(contract: Callable[..., _P]) -> cached_property[_P]:
    """A part of the app, made when it is first needed."""
    return cached_property(lambda app: app.make_part(contract))


class App:
    """Takes links in, and holds the parts that carry them to their channels."""

    run_again_s = 60.0  # after a plugin's run() has failed
    end_within_s = 5.0  # for what a plugin has running
    tell_within_s = 3.0  # for the last changes at a stop

    def __init__(self, settings: Settings, ours: Path = OURS) -> None:
        self.settings = settings
        self.plugins = Plugins(self, ours)
        self.has_gateway = False  # whether commands come to this process
        self.works = False  # whether it downloads and posts
        self.started_at = now()  # Unix seconds
        self.stopping = asyncio.Event()  # set when the stop begins
        self._ends = contextlib.AsyncExitStack()
        self._alive = False  # whether plugins have a life
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._feeding: asyncio.Task[None] | None = None
        self._telling: dict[str, asyncio.Task[Any]] = {}

    # The parts

    router = _part(Router)
    runner = _part(Runner)
    storage = _part(Storage)
    database = _part(Database)
    facts = _part(Facts)
    guilds = _part(Guilds)
    queue = _part(Queue)
    client = _part(Client)
    courier = _part(Courier)
    archive = _part(Archive)
    worker = _part(Worker)

    @property
    def bot(self) -> BossBot:
        """Discord's bot."""
        return self.client.bot

    def make_part(self, contract: type[Part]) -> Part:
        """A part, from the first plugin that can make it, the owner's before ours; it
        is stopped with the app. The contract's own class if that can stand in for it.

        Raises:
            StartError: none can.
        """
        name = contract.__name__.lower()
        for plugin in sorted(self.plugins.all.values(), key=lambda p: p.kind != "own"):
            if maker := plugin.parts.get(name):
                try:
                    part = maker(self)
                    if not isinstance(part, contract):
                        raise PluginError(f"its {name} is no {contract.__name__}")
                except StartError:
                    raise
                except (Exception, SystemExit) as error:  # the boundary of a plugin
                    self.plugins.switch_off(plugin.stem, error)
                    continue
                self._ends.push_async_callback(part.stop)
                return part
        if not inspect.isabstract(contract):
            return contract(self)
        why = [
            f"{plugin.stem} ({plugin.origin}) is off: {plugin.off}"
            for plugin in self.plugins.all.values()
            if plugin.off and plugin.stem.endswith(name)
        ]
        raise StartError(
            f"The part {name} is missing. {'; '.join(why) or 'No plugin offers it'}\n"
            "Correct that, or add another plugin with that part."
        )

    # Start and stop

    async def start(self, *, gateway: bool = True, work: bool = True) -> None:
        """Start the parts and the plugins' lives, and take up the jobs that are there.

        Args:
            gateway: take commands.
            work: download and post.

        Raises:
            StartError: a part is missing or cannot start.
        """
        asyncio.get_running_loop().set_task_factory(cast(Any, _start_task))
        self.has_gateway, self.works = gateway, work
        parts = [getattr(self, name) for name in PARTS]
        for part in parts[:-1]:
            await part.start()
        self._alive = True
        self._ends.push_async_callback(self._end_lives)
        self.plugins.on_off = self._on_off
        if gateway or not self.queue.shared:  # else a gateway tells the plugins
            self._feeding = asyncio.create_task(self._feed())
        self._begin()
        self._ends.push_async_callback(self._end_feed)
        if work:
            self._ends.push_async_callback(self.worker.stop)
            await self.worker.start()

    async def stop(self) -> None:
        """Stop everything that was started, in the reverse order."""
        self.stopping.set()
        await self._ends.aclose()

    async def reload(self, stem: str) -> Plugin:
        """Load a plugin again from disk, with its tables, commands and life. When that
        fails, the one that was on goes on, and the one that is returned says why. A
        part of it counts from the next start."""
        # In a task of its own: a plugin that reloads itself ends with its old life.
        return await asyncio.shield(asyncio.create_task(self._reload(stem)))

    async def _reload(self, stem: str) -> Plugin:
        async with self._reloading:
            old = self.plugins.all.get(stem)
            plugin = self.plugins.reload(stem)
            if plugin.off or not self._alive:
                return plugin
            if old:
                await self._end(old)
            try:
                await self.database.migrate(stem, plugin.tables)
                if self.has_gateway:
                    await self.client.install(plugin)
            except PluginError as error:
                self.plugins.switch_off(stem, error)
            loaded = self.plugins.all[stem]
            if loaded.off:
                await asyncio.wait(self._endings)
                if old and self.plugins.put_back(old) and self.has_gateway:
                    await self.client.install(old)
            self._begin(stem)
            if self.has_gateway:
                await self.client.sync()
            return loaded

    def _begin(self, stem: str | None = None) -> None:
        """Start the life of a plugin, or of all."""
        for impl in self.plugins.impls("run", stem):
            life = asyncio.create_task(self._live(impl))
            self._lives[impl.plugin_name] = life

    async def _live(self, impl: pluggy.HookImpl) -> None:
        plugin, task = self.plugins.of[impl.plugin], asyncio.current_task()
        while True:
            began_s = now()
            try:
                await self.plugins.invoke(impl, plugin)
                return
            # The boundary of a plugin.
            except (Exception, SystemExit, asyncio.CancelledError) as error:
                ending = bool(task and task.cancelling())
                if ending and isinstance(error, asyncio.CancelledError):
                    raise
                if now() - began_s > 10 * self.run_again_s:
                    plugin.failures.pop("run", None)  # it had been well
                if self.plugins.failed(plugin, "run", error) or ending:
                    return
            await asyncio.sleep(self.run_again_s)

    def _on_off(self, plugin: Plugin) -> None:
        async def end() -> None:
            await self._end(plugin)
            if self._alive and self.has_gateway:
                await self.client.sync()

        ending = asyncio.create_task(end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end(self, plugin: Plugin) -> None:
        """End a plugin's life and what it started, and remove its commands. The tasks
        of a part end with the part."""
        stem, started = plugin.stem, set[asyncio.Task[Any]]()
        life = self._lives.pop(stem, None)
        if not plugin.parts:
            loop, found = asyncio.get_running_loop(), list(_started[stem].items())
            # A hook that is at work on a job goes on with what it has started.
            started = {
                task
                for task, call in found
                if task.get_loop() is loop
                and not (self._alive and call and not call.over)
            }
        tasks = (started | ({life} if life else set())) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, alive = await asyncio.wait(tasks, timeout=self.end_within_s)
            if alive:
                logger.error("plugin {} does not let go; restart the bot", stem)
        if self._alive and self.has_gateway:
            await self.client.uninstall(stem)

    async def _end_lives(self) -> None:
        self._alive = False
        await asyncio.gather(*map(self._end, self.plugins.all.values()))

    # Intake

    async def intake(self, job: Job) -> Accepted | None:
        """Take in a link, as the ``url`` of a job: once this returns a job, it is
        committed. None when the request was taken before. Raises Refused with the
        reason, for the member."""
        job.url, job.platform, job.engine = self.router.route(job.url)
        job.guild_settings = self.guilds.tables(job.guild_id)
        job.limit_bytes = await self.courier.limit_bytes(job)
        try:
            await self.plugins.call("check_job", job=job)
            if answer := await self.plugins.call_first("answer_job", job=job):
                if isinstance(answer, Message):
                    return Accepted(None, answer.content, answer.view)
                return Accepted(None, str(answer))
            return None if await self.queue.add(job) is None else Accepted(job)
        except Exception as error:  # whatever it is, no plugin must count the link
            await self.plugins.call("job_refused", job=job)
            if isinstance(error, OutOfReach):
                raise OutOfReach(_(NO_LINKS)) from error
            raise

    # The feed

    async def _feed(self) -> None:
        """Pass on what the queue says, the only source of changes."""
        async for change in self.queue.changes():
            if change:
                self._tell(change)

    def _tell(self, change: Change) -> None:
        """Log a committed change and call the plugins, for each job in order. Of its
        progress, what comes while they are still busy with the last is left out."""
        job, previous, progress = change
        key = f"{job.id} progress" if progress else job.id
        earlier = self._telling.get(key)
        if progress and earlier:
            return
        if not progress:
            log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
            log.debug("{} -> {} {}", previous, job.status, public_url(job))

        async def tell() -> None:
            language.set(job.language)
            call = self.plugins.call
            if earlier:
                await asyncio.wait([earlier])
            if progress:
                await call("job_progressed", job=job, progress=progress)
            else:
                await call("job_changed", job=job, previous=previous)

        def told(_: Any) -> None:
            if self._telling.get(key) is task:
                del self._telling[key]

        task = self._telling[key] = asyncio.create_task(tell())
        task.add_done_callback(told)

    async def _end_feed(self) -> None:
        await self.queue.stop()  # then changes() ends, with nothing left out
        within = self.tell_within_s
        if self._feeding:
            await asyncio.wait([self._feeding], timeout=within)
        if self._telling:
            await asyncio.wait(list(self._telling.values()), timeout=within)


# ── Secrets and the log ────────────────────────────────────────────────────────────

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_secrets: set[str] = set()  # what no log line may hold
_secrets_of: dict[str, frozenset[str]] = {}  # the same by where they come from
_hiding = threading.Lock()
SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|session|cookie(?!s_file)|auth|api_?key"
)


def secret_values(thing: Any) -> Iterable[str]:
    """Every secret in the settings, to be kept out of the log."""
    if isinstance(thing, SecretStr):
        yield thing.get_secret_value()
    elif isinstance(thing, BaseModel):
        yield from secret_values(dict(thing))
    elif isinstance(thing, (dict, list, tuple)):  # raw ones carry no types
        pairs = thing.items() if isinstance(thing, dict) else enumerate(thing)
        for key, value in pairs:
            if isinstance(value, str) and SECRET_NAME.search(str(key)):
                yield value
            yield from secret_values(value)


def hide_secrets(source: str, secrets: Iterable[str]) -> None:
    """Keep secrets out of the log, in place of those that the source had before."""
    global _secrets
    with _hiding:
        _secrets_of[source] = frozenset(secrets)
        _secrets = set().union(*_secrets_of.values())


def redact(text: str) -> str:
    """Text without known secrets, passwords and queries of links, interaction tokens."""
    for secret in sorted(_secrets, key=len, reverse=True):  # one may begin another
        if len(secret) > 3:
            text = text.replace(secret, "[secret]")
    text = re.sub(r"://[^\s/'\"]+@", "://[secret]@", text)
    text = without_queries(text)
    text = re.sub(r"((?:webhooks|interactions)/\d+/)[\w\-.]{20,}", r"\1[secret]", text)
    return re.sub(r"('token': ')[^']+", r"\1[secret]", text)


class _ToLoguru(logging.Handler):
    """Passes what libraries log on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in LEVELS else record.levelno
        log = logger.opt(exception=record.exc_info)
        log.log(level, "{}: {}", record.name, record.getMessage())


MAX_TRACE = 200  # lines of a traceback


def set_up_log(settings: Settings, debug: bool, console: TextIO) -> None:
    """Write the log to the console, and with every detail to files of a day or of a
    tenth of ``max_log_size``. No line holds a secret, and a message is one line; a
    traceback shows the values of variables only with ``debug``."""
    hide_secrets("the settings", secret_values(settings))
    folder, most = settings.data_dir / "logs", int(settings.max_log_size)

    def is_full(message: Any, file: TextIO) -> bool:
        size = file.seek(0, os.SEEK_END) + len(message.encode())
        day = str(message.record["time"].date())
        return day not in Path(file.name).name or size > most / 10 > 0

    def remove_old(files: Iterable[str | Path]) -> None:
        left, before = most * 0.9, time.time() - settings.log_retention_days * 86400
        with contextlib.suppress(OSError):  # another process removes them, too
            for file in sorted(files, key=os.path.getmtime, reverse=True):
                left -= os.path.getsize(file)
                if left < 0 < most or os.path.getmtime(file) < before:
                    os.remove(file)

    def clean(record: Any) -> None:
        import traceback

        bound = (f"{key}={value}" for key, value in record["extra"].items() if value)
        record["message"] = one_line(redact(cut_line(record["message"])))
        lines = [" ".join([record["message"], *bound])]
        if error := record["exception"]:
            trace = traceback.TracebackException(*error, capture_locals=debug)
            found = "".join(trace.format()).splitlines()
            if len(found) > MAX_TRACE:
                found[MAX_TRACE // 2 : -MAX_TRACE // 2] = ["..."]
            lines += map(cut_line, found)
            record["exception"] = None
        text = "\n".join(one_line(line, fold=False) for line in lines)
        record["extra"]["text"] = redact(text).replace("\n", "\n  ")

    style = "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {extra[text]}"
    level = "DEBUG" if debug else settings.log_level
    common: dict[str, Any] = {"format": style, "diagnose": False, "backtrace": False}
    logger.remove()
    logger.configure(patcher=clean)
    logger.add(
        console,
        level=level if console is sys.stdout or debug else "WARNING",
        filter=lambda record: record["level"].no < logging.ERROR,
        **common,
    )
    logger.add(sys.stderr, level="ERROR", **common)
    plain = str(folder).replace("{", "{{").replace("}", "}}")  # else it is a template
    try:
        remove_old(folder.glob("boss-bot_*.log"))
        logger.add(
            f"{plain}{os.sep}boss-bot_{{time:YYYY-MM-DD}}.log",
            level="DEBUG",
            rotation=is_full,
            retention=remove_old,
            catch=True,  # a full disk must not stop the bot
            opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600),
            **common,
        )
    except OSError as error:
        logger.error("{}: {}. Change the owner of its files.", folder, error)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.NOTSET, force=True)
    for name in ("aiosqlite", "asyncio"):  # they would log every statement
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("discord.gateway", "discord.http", "discord.client"):  # every message
        logging.getLogger(name).setLevel(logging.NOTSET if debug else logging.INFO)


# ── Command line ───────────────────────────────────────────────────────────────────

STOP_WITHIN_S = 25.0  # then the process ends, whatever a plugin still does


def prepare_data(data: Path) -> None:
    """Make the folders of the data folder; raises StartError when it cannot be done."""
    try:
        for name in ("temp", "downloads", "guilds", "logs", "cache", ".locks"):
            (data / name).mkdir(parents=True, exist_ok=True)
            if not os.access(data / name, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StartError(
            f"{data / name}: {error.strerror}. The bot must be able to write there: "
            "change its owner (chown), or set data_dir."
        ) from error


def _parser(plugins: Plugins, options: argparse.ArgumentParser) -> Any:
    """The parser of the command line, with the plugins' commands."""
    parser = argparse.ArgumentParser(
        "bossbot.py",
        description="A Discord media bot.",
        allow_abbrev=False,
        parents=[options],
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in plugins.registered("subcommands").values():
        try:
            subparser = subparsers.add_parser(command.name, help=command.help)
            command.add_arguments(subparser)
        except (Exception, SystemExit) as error:  # the boundary of a plugin
            logger.error("the command {} is broken: {!r}", command.name, error)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bot or a command; returns the exit code: 0, 1 for a failed command, 2
    where the bot cannot go on, 130 after Ctrl-C."""
    closed = [n for n in ("stdin", "stdout", "stderr") if getattr(sys, n) is None]
    _open_standard_streams(closed)
    try:
        try:
            return _main(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who read the output has enough
        _open_standard_streams(("stdout", "stderr"))
        return 1


def _main(argv: Sequence[str] | None) -> int:
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--config", type=Path, metavar="PATH", help="a settings file")
    options.add_argument("--debug", action="store_true", help="log everything")
    version = f"Boss-Bot {__version__} (plugin API {API})"
    options.add_argument("--version", action="version", version=version)
    known, rest = options.parse_known_args(argv)  # the plugins' commands come later
    os.umask(0o077)  # what the bot writes is its owner's
    try:
        if {"-h", "--help"} & {*rest}:  # which only needs the plugins with commands
            logger.remove()
            try:
                app = App(load_settings(known.config))
            except StartError:  # a mistake in the settings must not hide the help
                app = App(Settings.model_validate({}))
            app.plugins.load(mentioning="register_subcommands")
            _parser(app.plugins, options).parse_args(rest)
        settings = load_settings(known.config)
        prepare_data(settings.data_dir)
        stays = ("run", "gateway", "worker")
        answers = any(word not in stays and word[:1] != "-" for word in rest)
        set_up_log(settings, known.debug, sys.stderr if answers else sys.stdout)
        app = App(settings)
        app.plugins.load()
        commands = app.plugins.registered("subcommands")
        name = rest[0] if rest else "run"
        if name.startswith("-"):
            known_options = ("--config", "--debug", "--version", "--help")
            hint = did_you_mean(name, known_options)
            raise StartError(f"Unknown option {name}{hint}. Run it with --help.")
        terminal = sys.stdin is not None and sys.stdin.isatty()
        first = name == "run" and not settings.discord_token and terminal
        name = "setup" if first else name
        if name not in commands:
            off = [f"{p.stem}: {p.off}" for p in app.plugins.all.values() if p.off]
            raise StartError(
                f"No plugin offers the command {name}{did_you_mean(name, commands)}. "
                f"You can run: {', '.join(commands)}. Plugins that are off: "
                f"{'; '.join(off) or 'none'}."
            )
        arguments = _parser(app.plugins, options).parse_args(rest or [name])
        command = commands[name]
        # A plugin that does not let go would keep the process for ever.
        deadline = threading.Timer(STOP_WITHIN_S, os._exit, [1])
        deadline.daemon = True
        try:
            code = asyncio.run(_session(app, command, arguments, deadline))
        finally:
            deadline.cancel()
        return _main(argv) if first and code == 0 else code
    except BossbotError as error:
        detail = error.detail if isinstance(error, JobFailed) else ""
        print(error, *([f"({detail})"] if detail else []), file=sys.stderr)
        return 2 if isinstance(error, StartError) else 1
    except KeyboardInterrupt:
        return 130


def _open_standard_streams(names: Sequence[str]) -> None:
    """Lead what nobody reads any more, or what was never open, to nowhere: the next file
    or socket would else take its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if name in names:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


async def _session(
    app: App, command: Subcommand, args: argparse.Namespace, deadline: threading.Timer
) -> int:
    """Run a command, and stop what it started before the deadline."""
    try:
        return await command.run(app, args)
    finally:
        deadline.start()
        await app.stop()
