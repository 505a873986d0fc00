"""The declarations that Boss-Bot's core and its plugins share: this file does no work.

``bossbot.py`` imports it and does the work; plugins import all of it from there. From
top to bottom: the errors, texts for people, secrets, the data (mainly ``Job``), the
contributions of plugins (``Platform``, ``Engine`` and others), their settings, the
parts in the order of a link, and at the end every hook.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import re
import secrets
import threading
import time
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
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
    TypeVar,
)

import pluggy
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

if TYPE_CHECKING:  # names for annotations only
    import argparse
    import sqlite3

    import aiosqlite
    import discord
    from discord.ext import commands
    from prometheus_client import CollectorRegistry

    from bossbot import App, Plugin, Settings

    class BossBot(commands.Bot):
        """The Discord bot, as plugins use it."""

        app: App
else:  # importing discord.py takes a while, and few commands need it
    BossBot = object

HERE = Path(__file__).resolve().parent  # the bot's own folder

# ── Errors ─────────────────────────────────────────────────────────────────────────


class BossbotError(Exception):
    """The root of our errors; ``str(error)`` is safe to show to a member.

    BossbotError
    ├── StartError        the bot cannot start or continue
    ├── PluginError       a plugin is wrong and switched off
    ├── Refused           a rule or a check says no
    │   ├── QueueFull
    │   └── OutOfReach    the queue or the facts do not answer now
    └── JobFailed         an attempt failed
    """


class StartError(BossbotError):
    """The bot cannot start or continue; the text has the remedy. Exit code 2."""


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
    """The queue or the facts do not answer now. Members are refused; a worker tries
    again."""


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
            text = _("The site asks the bot to slow down. Try again in {wait}.")
            message = message or text.format(wait=wait)
        super().__init__(message or SENTENCES[cause])
        self.cause = cause
        self.detail = redact(cut_line(detail))
        self.retry_after_s = retry_after_s


# ── Text ───────────────────────────────────────────────────────────────────────────

# Code that answers a member sets the language, by Discord's name for it ("de"), and a
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


MAX_LINE = 2048  # characters of a line from outside that are read


def cut_line(text: str, limit: int = MAX_LINE) -> str:
    """The start of a text from outside. The cut is never in the middle of a known
    secret, whose first half nothing would recognise."""
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


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """ " (did you mean max_items?)", or "" when nothing is like it."""
    close = difflib.get_close_matches(key, list(known), 1)
    text = _("(did you mean {name}?)")
    return f" {text.format(name=close[0])}" if close else ""


# ── Secrets ────────────────────────────────────────────────────────────────────────

_secrets: set[str] = set()  # kept out of every log line
_secrets_of: dict[str, frozenset[str]] = {}  # the same, by source
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


# ── The data ───────────────────────────────────────────────────────────────────────


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_STARTED_S = time.time() - time.clock_gettime(_CLOCK)


def now() -> float:
    """Unix seconds by a clock that never jumps while the bot runs."""
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


# These lie only in the job's own member or channel.
OWN_CAUSES = (Cause.CANCELLED, Cause.PERMISSION, Cause.QUOTA)

# Sentences for members: the failure, and the next step.
SENTENCES = {
    Cause.INVALID_URL: N_(
        "That is not a link I can open. Check it and paste it again."
    ),
    Cause.UNSUPPORTED: N_("I cannot download from that site."),
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
        "The site asks the bot to slow down. Try again in a few minutes."
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
    limit_bytes: int = 0  # of one file in its channel; the worker asks for it again
    same: str = ""  # while it is under way, others with the same join it; "": none
    created_at: float = field(default_factory=now)

    # Set by the queue's own verbs, and status and crashes by the holder of the claim, too:
    status: Status = Status.QUEUED
    priority: Priority = Priority.NORMAL
    position: int = 0  # in its guild's line when it was added; 0: it starts at once
    joins: str = ""  # the id of the job whose files are its files, too
    status_message_id: int = 0  # our message that shows the progress
    worker: str = ""  # the holder of the claim
    claim_number: int = 0  # grows with each claim; an older attempt changes nothing
    lease_until: float = 0
    not_before: float = 0  # not claimed before; a retry waits
    attempts: int = 0
    crashes: int = 0  # attempts in a row that a crash of the bot has cut off
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
    alt: str = ""  # the site's description of it
    failure: JobFailed | None = None  # why it cannot be posted, at any size
    beside: bool = False  # kept with the job's files, but not posted

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a download or an encoding; None for unknown values."""

    name: str  # of the file at hand, as the site calls it, or of the step
    done_bytes: int = 0
    total_bytes: int | None = None
    speed_bytes_s: float | None = None
    item: int = 1  # 1 is the first file
    items: int | None = None
    share: float | None = None  # 0 to 1, of work that is not counted in bytes


class Change(NamedTuple):
    """A committed change of a job, or its progress."""

    job: Job  # as it is now
    previous: Status | None = None  # None for a new job, or when it is not known
    progress: Progress | None = None  # then nothing was committed


@dataclass
class Fetched:
    """The result of an engine."""

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
    """ffmpeg's result."""

    length_s: float  # as far as it printed that
    said: str  # the end of its output


@dataclass(frozen=True, slots=True)
class Probe:
    """ffprobe's description of a file; None or "" for missing facts."""

    container: str  # ffprobe's names, for example "mov,mp4,m4a,3gp,3g2,mj2"
    duration_s: float | None = None
    video: str = ""  # the codec of the first picture stream, not of a cover
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
    ticks_per_s: float = 0  # all times of its frames are multiples of 1 / this
    transfer: str = ""  # ffprobe's name of its light: "smpte2084"
    channels: int = 0  # of the sound
    start_s: float = 0  # when the first picture or sound comes; the file may end later


class Accepted(NamedTuple):
    """The result of an intake: a job, or an answer instead."""

    job: Job | None
    answer: str = ""
    view: discord.ui.View | None = None  # the answer's buttons


@dataclass(kw_only=True)
class Action:
    """A command, button or menu entry that a member wants to use."""

    name: str  # of the command: "queue clear"
    group: str  # whose roles a server may name: "download", "queue", "settings"...
    guild_id: int  # 0 in a direct message
    channel: Any  # discord.abc.Messageable
    user: Any  # discord.Member, in a direct message discord.User
    permissions: discord.Permissions  # the member's, in that channel
    needs: Sequence[str] = ()  # the ones that the action needs
    owner: bool = False  # whether the member is the bot's owner
    dry: bool = False  # only a question whether it is allowed; counts towards no limit
    request: str = ""  # the message's or interaction's id; begins its jobs' request_key
    priority: Priority = Priority.NORMAL  # of its jobs; a check may change it
    guild_settings: dict[str, Any] = field(default_factory=dict)


# ── What plugins give ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Platform:
    """A site known by name: its links, the engine that fetches them, and the options
    for it. The loader fills in the settings that every platform has (see
    PlatformConfig)."""

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
    # Causes for the site's own words: (regular expression, cause), first match wins.
    failures: Sequence[tuple[str, Cause]] = ()

    def engine_for(self, url: str) -> str:
        """The engine that fetches one of its links."""
        routed = (e for p, e in self.routes if re.match(p, url, re.IGNORECASE))
        return next(routed, self.engine)


@dataclass
class Request:
    """An engine's input in the child: the link and the limits."""

    url: str
    folder: Path  # where files go, and nowhere else; exists and is empty
    prefix: str  # every file's name starts so: f"{prefix}_{number:04d}.{ext}"
    engine: str = ""
    platform: str = ""
    options: dict[str, Any] = field(default_factory=dict)  # the member's
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
    target_bytes: int = 0  # the channel's limit: prefer a format that fits; 0 for none
    failures: Sequence[tuple[str, Cause]] = ()


class Report(Protocol):
    """An engine's way to report on its work, in the child."""

    def info(self, **facts: Any) -> None:
        """Report on the post: title, uploader, date (ISO 8601), text, adult (true or
        false); items, how many files it has; more, whether some were left out; mute,
        whether a video's sound was; side and best_side, the shorter sides in pixels of
        the video that was chosen to fit and of the best there is; leads_to, the link
        that one redirects to, before that is opened. What is known of a file comes
        before it: it may be posted while others are downloaded."""

    def progress(self, progress: Progress) -> None:
        """Report the progress of a file; cheap, call it for every chunk."""

    def file(self, path: Path, alt: str = "") -> None:
        """Report that a file is complete, in the order of the post; ``alt`` is the
        site's description of it."""

    def item_failed(self, failure: JobFailed) -> None:
        """Report that one item could not be fetched; the others go on."""


@dataclass(frozen=True)
class Engine:
    """A way to fetch. All four functions run in the fork server or its children, with
    the engine's library imported inside them: the bot itself never imports it."""

    name: str
    version: Callable[[], str]
    # Imports the library and does slow work once; then it is called in a copy of
    # the process, too, where it shows which memory a download changes.
    warm: Callable[[], None]
    # Whether the engine has an extractor of its own for the link; no network.
    supports: Callable[[str], bool]
    # Downloads all files of a link, or raises JobFailed.
    download: Callable[[Request, Report], None]
    generic: bool = False  # it can also try a page without an extractor
    # Whether it knows the link as one post. For a profile, a set, or a file by its mere
    # ending, another engine that does goes first, and is asked when this one fails.
    single: Callable[[str], bool] = lambda url: True
    # A JobFailed's sentences for members; any other is replaced by its cause's.
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
    """The message that carries the files, for ``decorate_message`` to change."""

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
        """ffprobe's description of a file.

        Raises:
            JobFailed: ffprobe is missing or cannot read the file.
        """

    @abstractmethod
    async def apng(self, file: MediaFile) -> MediaFile:
        """A WebP that moves as an animated PNG, which ffmpeg can read.

        Raises:
            JobFailed: it is damaged, or too large.
        """


# ── Plugins' settings ──────────────────────────────────────────────────────────────

# A path in a setting starts at the bot's folder, whatever the working directory.
OwnPath = Annotated[Path, AfterValidator(lambda path: HERE / os.path.expanduser(path))]

# Types of a server's settings besides plain values: /settings accepts and shows these
# as mentions and names.
RoleId = Annotated[int, Field(gt=0), "role"]
ChannelId = Annotated[int, Field(gt=0), "channel"]
UserId = Annotated[int, Field(gt=0), "user"]
PlatformName = Annotated[str, "platform"]

MAX_NUMBER = 2**62  # sums of two still fit into 64 bits
MAX_DEPTH = 50  # of tables and lists in each other
TOO_LARGE = f"the number is too large; {MAX_NUMBER:,} is more than enough"
TOO_DEEP = f"tables and lists are nested too deep, over {MAX_DEPTH} levels"


def is_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether tables and lists are nested deeper than so many levels."""
    values = value.values() if isinstance(value, dict) else value
    inside = values if isinstance(value, (dict, list)) else ()
    return levels < 0 or any(is_deep(one, levels - 1) for one in inside)


def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
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
            return checked(value, check)
        except ValidationError:
            if not isinstance(value, str) or not value.startswith(("[", "{")):
                raise
        with contextlib.suppress(RecursionError):
            if not is_deep(table := json.loads(value)):
                return checked(table, check)
        raise ValueError(TOO_DEEP)

    def within(self, config: Any, settings: Settings) -> Self:
        """A server's settings that apply: with the owner's value where the server has
        none (None), and never beyond the owner's limits. Yours to override."""
        return self


class PlatformConfig(PluginConfig):
    """The owner's settings for every platform."""

    cookies_file: OwnPath | None = Field(None, description="an account's cookies.txt")
    proxy: str | None = Field(None, description="a proxy for this site only")
    sleep_request_s: float = Field(0, ge=0, description="pause between two requests")
    options: dict[str, Any] = Field({}, description="the engine's own options")


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
        """The problem that keeps it from working now, in a few words; "" for none.
        Cancelled after two seconds."""
        return ""


class Route(NamedTuple):
    """Where a link goes."""

    url: str  # normalised
    platform: str  # "" for a link of no platform
    engine: str  # "" if the engines must be asked: see Runner.supports


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
        """Each engine's version, and its age in days if that is known."""

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
        """The number of running downloads."""
        return 0

    def end_all(self, failure: JobFailed) -> int:
        """End all running downloads and programs at once, with this failure; returns
        how many."""
        return 0


class Stored(NamedTuple):
    """Files that lie in the storage, and the job they came from."""

    job_id: str
    guild_id: int
    path: Path
    size_bytes: int
    changed_at: float  # Unix seconds


class Storage(Part):
    """Keeps files. Nothing else depends on the layout of its folders."""

    @abstractmethod
    async def inspect(self, path: Path, folder: Path) -> MediaFile:
        """A file, checked: media or plain text, whatever its name.

        Raises:
            JobFailed: it is not a regular file inside the folder, is empty, or
                holds no media.
        """

    @abstractmethod
    async def attempt_folder(self, job: Job) -> Path:
        """A new folder for this attempt, with ``files`` and ``home`` in it."""

    @abstractmethod
    async def set_apart(self, job: Job, names: Sequence[str]) -> Path:
        """Copy files of this attempt, by name, to a new folder that the process which
        still downloads cannot write to; returns it. ``home`` is beside it; the folder
        from an earlier call goes. Anything but regular files is left out."""

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
    async def attempts_bytes(self, job_ids: Collection[str]) -> int:
        """The bytes of some jobs' attempts."""


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
        """The same in one go, for frequent queries: ``work`` gets the connection in the
        database's thread, and is undone if it raises."""

    @abstractmethod
    async def sync(self) -> None:
        """Return when all that was committed before would survive a power cut; it gets
        there by itself a second later. Raises the errors of writing."""

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
        """The fact's value, "" if there is none."""

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
        self.broken: dict[int, str] = {}  # the current mistakes, by guild
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
    ``save`` stored as ``sending``, and no end: those return and are reported later."""

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
        """Remember that the members got the results of some jobs."""

    @abstractmethod
    async def position(self, job_id: str) -> int:
        """A waiting job's place in its guild's line, from 1; 0 when it does not wait."""

    @abstractmethod
    async def move(self, job_id: str, priority: Priority) -> bool:
        """Change a waiting job's priority; False when it does not wait."""

    @abstractmethod
    async def cancel(self, job_id: str, waiting_only: bool = False) -> Job | None:
        """Make a waiting or running job ``cancelled``; its worker gets the change. None
        when it was uploading or had ended, or with ``waiting_only`` when it had
        begun."""

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
        """Pass on a job's progress; may be lost."""

    @abstractmethod
    def changes(self) -> AsyncIterator[Change | None]:
        """Every change of every job as it is committed, by any process, and the progress
        from ``report``. None at first and now and then, since a delayed job
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
        """Send the slash commands to Discord if they have changed, or ``again``; False
        if it does not accept them."""


class Courier(Part):
    """Posts files to the channels of their requests."""

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
        """Send what is not sent yet, each message guarded by the job's claim. That the
        last one of an uploading job was sent is left to be stored with its end.

        Raises:
            JobFailed: it cannot be posted, or the claim was lost.
            FileNotFoundError: a kept file is gone, not as it was, or too large by what
                is known now; worth another download if no file was posted.
        """


class Passage(NamedTuple):
    """A piece of a post's text."""

    text: str
    source: str = "file"  # or "title", "text", "subtitles", "ocr", "speech"...
    start_s: float | None = None  # the time at which it is spoken


class Archive(Part):
    """The memory of posts. This one remembers nothing: it is used if no plugin has
    one."""

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


# In the order above, in which they start; they stop in reverse order.
PARTS: dict[str, type[Part]] = {
    part.__name__.lower(): part for part in Part.__subclasses__()
}

# ── Hooks ──────────────────────────────────────────────────────────────────────────

hookspec = pluggy.HookspecMarker("bossbot")
hookimpl = pluggy.HookimplMarker("bossbot")

# A check that breaks refuses, and is never switched off for it.
VETOES = ("check_action", "check_job", "check_claim", "check_attempt", "check_upload")
QUICK_HOOKS = (*VETOES, "answer_job")
# Errors that a hook may raise as an answer; in others, they are failures.
MAY_SAY: dict[str, tuple[type[Exception], ...]] = {
    **dict.fromkeys(QUICK_HOOKS, (Refused,)),
    "process_files": (Refused, JobFailed),
}


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
        """Return nothing; called when a command refuses though no check_action did."""

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
        """Return the text, speech or description of a posted file, for the search."""

    @hookspec
    def forget_downloads(self, guild_id: int | None, user_id: int | None) -> None:
        """Return when nothing is left of the downloads of a guild and a member."""

    @hookspec
    def check_machine(self) -> list[Finding]:
        """Return what is missing on this machine; called by ``check``."""


HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))
