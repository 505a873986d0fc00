#!/usr/bin/env python3
"""Boss-Bot: paste a link in Discord, and the media behind it is posted there.

This file is the whole core, to be read from top to bottom: settings, hooks, plugins, the
parts that plugins provide (queue, database, storage, runner, courier, the Discord client),
the pipeline that carries a link through them, the command line. All else is a plugin: a
file in ``plugins/``.

    python bossbot.py                 run the bot
    python bossbot.py get URL...      download without Discord
    python bossbot.py --help          the other commands
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import difflib
import importlib.util
import inspect
import logging
import os
import re
import secrets
import sqlite3
import stat
import sys
import threading
import time
import tomllib
import types
import unicodedata
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from email.utils import mktime_tz, parsedate_tz
from enum import IntEnum, StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TextIO
from urllib.parse import urlsplit

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
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
)

if TYPE_CHECKING:
    import aiosqlite
    import discord
    from discord.ext import commands

    class BossBot(commands.Bot):
        """The Discord client, as plugins see it."""

        pipeline: Pipeline
else:  # discord.py is for plugins to import
    BossBot = object

# ── Errors ─────────────────────────────────────────────────────────────────────────


class BossbotError(Exception):
    """The root of our errors; ``str(error)`` is safe to show to a member."""


class StartError(BossbotError):
    """The bot cannot start or go on; the text names the remedy. Exit code 2."""


class PluginError(BossbotError):
    """A plugin is wrong: it is switched off, the others run."""


class Refused(BossbotError):
    """A veto by a rule or a ``check_*`` hook; the text is shown to the member."""

    platform = ""  # whose link it was, if that is known


class QueueFull(Refused):
    """The guild has ``max_queue_size`` jobs waiting already."""


class JobFailed(BossbotError):
    """An attempt ended without its media. ``detail`` is for the log, in the words of the
    engine; ``message`` replaces the cause's sentence; ``retry_after_s`` is how long the
    site asked to wait."""

    def __init__(
        self,
        cause: Cause,
        detail: str = "",
        message: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        if cause is Cause.RATE_LIMITED and retry_after_s:
            wait = format_time(max(retry_after_s, 3))
            message = message or f"The site asks us to slow down. Try again in {wait}."
        super().__init__(message or SENTENCES[cause])
        self.cause = cause
        self.detail = without_queries(detail)
        self.retry_after_s = retry_after_s


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


# What a member reads: what happened, and what to do next.
SENTENCES = {
    Cause.INVALID_URL: "That is not a link I can open. Check it and paste it again.",
    Cause.UNSUPPORTED: "I know no way to download from that site.",
    Cause.LOGIN: "That post needs the host's login. "
    "Ask the bot's owner to add one for this site.",
    Cause.AGE: "That post is age-restricted and needs the host's login.",
    Cause.PRIVATE: "That post is private. Only its followers can see it.",
    Cause.GONE: "That post does not exist any more, or never did. Check the link.",
    Cause.REGION: "That post is not available in the country the bot runs in.",
    Cause.RATE_LIMITED: "The site asks us to slow down. Try again in a few minutes.",
    Cause.NETWORK: "The site could not be reached. Try again later.",
    Cause.TOO_LARGE: "That is larger than the host allows.",
    Cause.TIMED_OUT: "That took too long and was stopped. Try again later.",
    Cause.NO_MEDIA: "There is no photo, video or sound behind that link.",
    Cause.QUOTA: "This server has used up its share for today. Try again tomorrow.",
    Cause.PERMISSION: "I am not allowed to post files here. "
    "Ask an admin to give me Send Messages and Attach Files.",
    Cause.DISK_FULL: "The bot's disk is full. Ask the bot's owner to make room.",
    Cause.ENGINE_OUTDATED: "The site has changed. "
    "Ask the bot's owner to update the bot's engines.",
    Cause.CANCELLED: "Cancelled.",
    Cause.INTERNAL: "Something went wrong inside the bot. Its log has the details.",
}


@dataclass(slots=True)
class Job:
    """One link of one member, from the queue to the channel. Times are Unix seconds."""

    id: str  # 10 hex digits
    url: str  # normalised; what the engine gets
    platform: str  # a platform's name, or "" for any other link
    engine: str  # an engine's name
    guild_id: int = 0  # 0 in a direct message
    channel_id: int = 0  # 0 when the job has no channel (the command line)
    user_id: int = 0
    request_key: str = ""  # one per link of a message or interaction; taken once
    message_id: int = 0  # the request to reply to; 0 for none
    status_message_id: int = 0  # our own message that shows the progress
    status: Status = Status.QUEUED
    priority: Priority = Priority.NORMAL
    attempts: int = 0
    crashes: int = 0  # attempts in a row that ended with the whole bot
    fence: int = 0  # grows with each claim; an older attempt can change nothing
    worker: str = ""
    lease_until: float = 0
    not_before: float = 0  # not claimed before; a retry waits
    cause: Cause | None = None
    error: str = ""  # the member's sentence
    detail: str = ""  # the log's
    title: str = ""
    folder: str = ""  # of the kept files, under data_dir; "" before there are any
    file_count: int = 0
    total_bytes: int = 0
    created_at: float = field(default_factory=now)
    started_at: float = 0
    finished_at: float = 0

    def __post_init__(self) -> None:
        self.status = Status(self.status)
        self.priority = Priority(self.priority)
        self.cause = Cause(self.cause) if self.cause else None


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file of a job, checked: a regular file inside the job's folder."""

    path: Path
    size: int  # bytes
    sha256: str
    mime: str

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is; None where the site does not say."""

    name: str  # of the file at hand, as the site calls it
    done_bytes: int
    total_bytes: int | None = None
    speed_bytes_s: float | None = None
    item: int = 1  # 1 is the first file
    items: int | None = None


@dataclass(frozen=True)
class Platform:
    """A site we know by name: which links are its, which engine fetches them, how."""

    name: str
    pattern: str  # a regular expression that matches the start of its links
    example: str  # a link that the pattern must match
    engine: str
    options: dict[str, Any] = field(default_factory=dict)  # the engine's own options
    # Other engines for some links: (pattern, engine), first match wins.
    routes: Sequence[tuple[str, str]] = ()
    # Folds aliases and tracking parameters; may raise Refused.
    normalise: Callable[[str], str] = lambda url: url
    cookies: dict[str, SecretStr | None] = field(default_factory=dict)
    cookies_file: Path | None = None  # cookies.txt; rotated cookies are written back
    cookies_domain: str = ""  # ".x.com": where named cookies go, and nowhere else
    login_probe: str = ""  # a link that opens with a login alone, for check --login
    proxy: str | None = None
    sleep_request_s: float = 0  # between two requests to the site
    # What the site's own words mean: (regular expression, cause), first match wins.
    failures: Sequence[tuple[str, Cause]] = ()


@dataclass
class Request:
    """What an engine gets in the child: the link and the limits."""

    url: str
    folder: Path  # where files go, and nowhere else; exists and is empty
    prefix: str  # every file's name starts so: f"{prefix}_{number:04d}.{ext}"
    platform: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    cookies_file: Path | None = None  # a Netscape cookies.txt of this attempt's own
    cache_dir: Path = Path(".")  # the engine's cache for this platform
    programs: dict[str, str] = field(default_factory=dict)  # ffmpeg, deno...: paths
    proxy: str | None = None
    sleep_request_s: float = 0
    max_items: int = 50
    max_file_bytes: int = 0  # of one source file
    max_job_bytes: int = 0  # of all source files
    target_bytes: int = 0  # what can be posted: prefer a format that fits; 0 for any
    failures: Sequence[tuple[str, Cause]] = ()


class Report(Protocol):
    """What an engine tells of its work, in the child."""

    def info(self, **facts: Any) -> None:
        """Tell about the post: title, uploader, date, text; items, how many there are;
        more, whether some were left out."""

    def progress(self, progress: Progress) -> None:
        """Tell how far a file is; cheap, call it for every chunk."""

    def file(self, path: Path) -> None:
        """Tell that a file is complete, in the order of the post."""

    def item_failed(self, failure: JobFailed) -> None:
        """Tell that one item could not be fetched; the others go on."""


@dataclass(frozen=True)
class Engine:
    """A way to fetch. All four functions run in the fork server or its children, with
    the engine's library imported inside them: the bot itself never imports it."""

    name: str
    version: Callable[[], str]
    warm: Callable[[], None]  # imports the library and builds what is slow, once
    # Whether an extractor of the engine's own knows the link; no network.
    supports: Callable[[str], bool]
    # Downloads all files of a link, or raises JobFailed.
    download: Callable[[Request, Report], None]
    generic: bool = False  # it can also try a page that no extractor knows


def without_queries(text: str) -> str:
    """Text in which no link, whole or in part, has what may be a secret after "?"."""
    text = re.sub(r"(\w://[^\s'\"<>?#]*)[?#][^\s'\"<>]*", r"\1", text)
    return re.sub(r"\?[\w%.~\[\]-]+=[^\s'\"<>]*", "", text)


def first_cause(text: str, table: Iterable[tuple[str, Cause]]) -> Cause | None:
    """The cause of the first pattern found in the text, whatever the case; ``^`` and
    ``$`` match at each line."""
    flags = re.IGNORECASE | re.MULTILINE
    found = (cause for words, cause in table if re.search(words, text, flags))
    return next(found, None)


# What an HTTP status means to who pasted the link. 403 also means private, or an address
# that the site does not like, but a login helps most often; what is not named says that
# the site wants to be asked in another way, or is out of order.
STATUS_CAUSES = [
    (r"40[1237]", Cause.LOGIN),
    (r"400|404|410|414", Cause.GONE),
    (r"408|504|524", Cause.TIMED_OUT),
    (r"420|429", Cause.RATE_LIMITED),
    (r"451", Cause.REGION),
    (r"^[1-4]", Cause.ENGINE_OUTDATED),
    (r"", Cause.NETWORK),
]


def wait_asked_s(headers: Any) -> float | None:
    """How long the headers of an answer ask to wait: ``Retry-After`` in seconds or as a
    date, or ``x-rate-limit-reset`` in Unix seconds; None when they do not say."""
    after, reset = headers.get("Retry-After") or "", headers.get("x-rate-limit-reset")
    with contextlib.suppress(ValueError, OverflowError):
        if after.isdecimal():
            return float(after[:9])
        if parts := parsedate_tz(after):
            return max(mktime_tz(parts) - time.time(), 0)
        return max(int(float(reset or "")) - time.time(), 0)
    return None


# ── Settings ───────────────────────────────────────────────────────────────────────

HERE = Path(__file__).resolve().parent

# A path in a setting starts at this file's folder, whatever the working directory.
OwnPath = Annotated[Path, AfterValidator(lambda path: HERE / os.path.expanduser(path))]


class PluginConfig(BaseModel):
    """The base of a plugin's ``Config``: its settings in ``[plugins.<stem>]``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PlatformConfig(PluginConfig):
    """What the host can set for every platform."""

    cookies_file: OwnPath | None = Field(None, description="an account's cookies.txt")
    proxy: str | None = Field(None, description="proxy for this site")
    sleep_request_s: float = Field(0, ge=0, description="pause between two requests")
    options: dict[str, Any] = Field(default_factory=dict, description="the engine's")


class Settings(BaseSettings):
    """Every setting of the core; ``config.toml`` explains each."""

    model_config = SettingsConfigDict(
        env_prefix="BOSS_BOT_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        dotenv_filtering="match_prefix",
        extra="forbid",
        validate_default=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    discord_token: SecretStr | None = None
    command_prefix: str = Field("$", pattern=r"\S", max_length=10)
    message_content: bool = True
    shards: bool = False
    data_dir: OwnPath = Path("data")
    plugins_dir: OwnPath = Path("plugins")
    disabled_plugins: list[str] = Field(default_factory=list)
    max_concurrent_downloads: int = Field(5, ge=1, le=100)
    max_concurrent_per_guild: int = Field(3, ge=1, le=100)
    max_queue_size: int = Field(50, ge=1)
    max_items: int = Field(50, ge=1)
    max_download_size: ByteSize = ByteSize(200 * 2**20)
    max_job_size: ByteSize = ByteSize(500 * 2**20)
    max_file_size: ByteSize = ByteSize(50 * 2**20)
    # Discord, 2026-09: per file, by the guild's boost tier 0 to 3
    upload_limits: list[ByteSize] = Field(
        [ByteSize(n * 2**20) for n in (20, 20, 50, 100)], min_length=4, max_length=4
    )
    max_temp_storage: ByteSize = ByteSize(2**30)
    max_storage: ByteSize = ByteSize(5 * 2**30)
    min_free_space: ByteSize = ByteSize(500 * 2**20)
    download_timeout_s: float = Field(600, gt=0)
    process_timeout_s: float = Field(1800, gt=0)
    memory_limit: ByteSize = ByteSize(384 * 2**20)
    temp_retention_s: float = Field(3600, ge=0)
    completed_retention_s: float = Field(86400, ge=0)
    failed_retention_s: float = Field(21600, ge=0)
    temp_scan_interval_s: float = Field(300, ge=1)
    main_scan_interval_s: float = Field(3600, ge=1)
    allow_private_addresses: bool = False
    allow_writable_plugins: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_retention_days: int = Field(14, ge=1)
    plugins: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """``Settings(...)`` takes what it is given; ``load_settings`` does the rest."""
        return (sources["init_settings"],)


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
        raise StartError(f"{config}: no such file. --config names a TOML file.")
    dotenv, path = root / ".env", config or root / "config.toml"
    if not path.is_file():
        print(f"{path} is missing: every setting has its default", file=sys.stderr)
    main = _read_toml(path)
    try:
        sources = [
            _Source("the environment", EnvSettingsSource(Settings)()),
            _Source(str(dotenv), DotEnvSettingsSource(Settings, env_file=dotenv)()),
        ]
    except (ValueError, OSError) as error:
        raise StartError(
            f"The environment or {dotenv}: {error}. Lists and tables in a variable are "
            'JSON: ["a", "b"]. One setting of a plugin is BOSS_BOT_PLUGINS__NAME__KEY.'
        ) from None
    early = _merge(*(source.values for source in (main, *reversed(sources))))
    data = root / os.path.expanduser(str(early.get("data_dir", "data")))
    sources += [_read_toml(data / "config.toml"), main]
    problems = []
    for name, values, _ in sources[1:]:
        path = Path(name)
        if any(secret_values(values)) and path.is_file() and path.stat().st_mode & 0o77:
            try:
                path.chmod(0o600)
                done = "set to 0600"
            except OSError as error:  # another's file
                done = f"chmod 600 failed ({error.strerror})"
            print(f"{name} was readable by others: {done}", file=sys.stderr)
        if "discord_token" in values and path != dotenv:
            problems.append(f"{name}: discord_token belongs in .env, not in this file")
    for variable in os.environ:  # pydantic-settings names those of .env alone
        key = variable.lower().removeprefix("boss_bot_")
        known = key in _FIELDS or key.startswith("plugins__")
        if variable.upper().startswith("BOSS_BOT_") and not known:
            problems.append(f"the environment: unknown {variable}{did_you_mean(key)}")
    try:
        settings = Settings(**_merge(*(source.values for source in reversed(sources))))
    except ValidationError as error:
        problems += explain(error, sources=sources)
    if problems:
        raise StartError("\n".join(["The settings have mistakes:", *problems]))
    return settings


_FIELDS = tuple(Settings.model_fields)


def _read_toml(path: Path) -> _Source:
    try:
        text = path.read_text("utf-8-sig")  # Windows' editors write a mark first
        values = _merge(*({k.lower(): v} for k, v in tomllib.loads(text).items()))
        return _Source(str(path), values, text)
    except (FileNotFoundError, NotADirectoryError):
        return _Source(str(path), {})
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise StartError(f"{path}: {error}. Correct it and start again.") from None


def _merge(*tables: dict[str, Any]) -> dict[str, Any]:
    """One table of several, the weaker first; those inside are merged as well."""
    merged: dict[str, Any] = {}
    for key, value in (item for table in tables for item in table.items()):
        inside: Any = merged.get(key)
        both = isinstance(inside, dict) and isinstance(value, dict)
        merged[key] = _merge(inside, value) if both else value
    return merged


def did_you_mean(key: str, known: Iterable[str] = _FIELDS) -> str:
    """ "; did you mean max_items?", or "" when nothing is like it."""
    close = difflib.get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def explain(
    error: ValidationError,
    known: Iterable[str] = _FIELDS,
    sources: Sequence[_Source] = (),
) -> list[str]:
    """A line for each wrong value: file, line, key, what was expected."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        wrong = item["msg"]
        if item["type"] == "extra_forbidden":
            wrong = "no such setting" + did_you_mean(path[-1], known)
        places = (_place(source, path) for source in sources)
        lines.append(f"{next(filter(None, places), '')}{'.'.join(path)}: {wrong}")
    return lines


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


# ── Hooks ──────────────────────────────────────────────────────────────────────────

hookspec = pluggy.HookspecMarker("bossbot")
hookimpl = pluggy.HookimplMarker("bossbot")

# The seconds an implementation may take; process_files has its setting.
HOOK_LIMITS_S = {"check_job": 5, "check_upload": 5, "answer_job": 5, "bot_stopping": 3}
HOOK_LIMIT_S = 30.0
MAX_HOOK_FAILURES = 5  # then the plugin is switched off


@dataclass
class Message:
    """What ``decorate_message`` may change: the message that carries the files."""

    content: str
    embed: discord.Embed | None = None
    view: discord.ui.View | None = None


@dataclass(frozen=True)
class Subcommand:
    """``python bossbot.py <name>``."""

    name: str
    help: str
    # Returns the exit code.
    run: Callable[[Pipeline, argparse.Namespace], Coroutine[Any, Any, int]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


@dataclass(frozen=True)
class Finding:
    """Something this machine lacks, for ``check``."""

    what: str  # "ffmpeg is missing"
    cost: str  # "videos cannot be made to fit"
    remedy: str  # "apt install ffmpeg"
    fatal: bool = False  # the bot cannot run without it


class Hooks(Protocol):
    """Every hook. A plugin implements any of them as a function of the same name with
    ``@hookimpl`` and takes only the arguments it uses; each may also ask for ``config``
    (the plugin's own settings) and ``settings``. Registration hooks are plain
    functions; the others are ``async def``, or plain functions that run in a thread."""

    @hookspec
    def register_engines(self) -> list[Engine]:
        """Return ways to download; called once when the plugin is loaded."""

    @hookspec
    def register_platforms(self) -> list[Platform]:
        """Return sites known by name; called once when the plugin is loaded."""

    @hookspec
    def register_subcommands(self) -> list[Subcommand]:
        """Return commands of the command line; called when the plugin is loaded."""

    @hookspec
    def register_guild_settings(self) -> type[PluginConfig]:
        """Return a model, with defaults, of what each guild can set; called when loaded."""

    @hookspec(firstresult=True)
    def register_router(self, pipeline: Pipeline) -> Router:
        """Return who knows which engine a link goes to; called when one is needed."""

    @hookspec(firstresult=True)
    def register_runner(self, pipeline: Pipeline) -> Runner:
        """Return who runs the engines; called when one is needed."""

    @hookspec(firstresult=True)
    def register_storage(self, pipeline: Pipeline) -> Storage:
        """Return who keeps the files; called when one is needed."""

    @hookspec(firstresult=True)
    def register_db(self, pipeline: Pipeline) -> Database:
        """Return the SQLite database to use; called when one is needed."""

    @hookspec(firstresult=True)
    def register_queue(self, pipeline: Pipeline) -> Queue:
        """Return the queue to use; called when one is needed."""

    @hookspec(firstresult=True)
    def register_worker(self, pipeline: Pipeline) -> Worker:
        """Return who works on the jobs; called when one is needed."""

    @hookspec(firstresult=True)
    def register_courier(self, pipeline: Pipeline) -> Courier:
        """Return who brings files to channels; called when one is needed."""

    @hookspec(firstresult=True)
    def register_log(self, debug: bool, console: TextIO) -> bool:
        """Return True once loguru writes the log; called when the plugins are loaded.

        ``console`` is stdout, or stderr where stdout is for an answer."""

    @hookspec
    def register_commands(self, bot: BossBot) -> list[Any]:
        """Return cogs, commands, context menus, dynamic items; called after the login."""

    @hookspec
    def check_job(self, job: Job) -> None:
        """Raise Refused("why") to veto a job; called before it is queued."""

    @hookspec(firstresult=True)
    def answer_job(self, job: Job) -> str | None:
        """Return a text in place of a download, or None; called after check_job."""

    @hookspec
    def process_files(
        self, job: Job, files: list[MediaFile], pipeline: Pipeline
    ) -> list[MediaFile]:
        """Return the new list of files; called after the download, in turn.

        ``pipeline.runner.run`` runs a program, ``pipeline.storage.inspect`` checks a
        file that it wrote."""

    @hookspec
    def check_upload(
        self, job: Job, files: list[MediaFile], channel: discord.abc.Messageable
    ) -> None:
        """Raise Refused("why") to veto the posting; called just before it."""

    @hookspec
    def decorate_message(self, job: Job, message: Message) -> Message:
        """Return the message with what you add to it; called before each is sent."""

    @hookspec(firstresult=True)
    def deliver_file(self, job: Job, file: MediaFile) -> str | None:
        """Return a text (a link) for a file too large to upload, or None."""

    @hookspec
    def job_changed(self, job: Job, previous: Status | None) -> None:
        """Return nothing; called after each committed change of a job."""

    @hookspec
    def job_progressed(self, job: Job, progress: Progress) -> None:
        """Return nothing; called a few times a second while a job downloads."""

    @hookspec
    def check_host(self) -> list[Finding]:
        """Return what this machine lacks; called by ``check``."""

    @hookspec
    def bot_started(self, bot: BossBot) -> None:
        """Return nothing; called when the bot is connected for the first time."""

    @hookspec
    def bot_stopping(self, bot: BossBot) -> None:
        """Return nothing; called before the bot disconnects."""


HOOKS = tuple(name for name in vars(Hooks) if not name.startswith("_"))


# ── Plugins: load, order, call ─────────────────────────────────────────────────────

PLUGIN_PACKAGE = "bossbot_plugins"  # synthetic, so that a queue.py shadows nothing


@dataclass
class Plugin:
    """A file of the plugins folder, and what has become of it."""

    stem: str
    off: str = ""  # why it is switched off; "" while it runs
    config: PluginConfig = field(default_factory=PluginConfig)
    hooks: list[str] = field(default_factory=list)
    failures: int = 0
    engines: list[Engine] = field(default_factory=list)
    platforms: list[Platform] = field(default_factory=list)
    subcommands: list[Subcommand] = field(default_factory=list)
    guild_settings: type[PluginConfig] | None = None


def import_plugin(path: Path) -> types.ModuleType:
    """Run a plugin's file as ``bossbot_plugins.<stem>``, afresh from disk."""
    package = types.ModuleType(PLUGIN_PACKAGE, "The plugins folder.")
    package.__path__ = [str(path.parent)]
    sys.modules.setdefault(PLUGIN_PACKAGE, package)
    name = f"{PLUGIN_PACKAGE}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader, f"{path} is no Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of a function that may block, from a thread of its own: a plugin that
    blocks for ever takes no place from others, nor does it keep the bot from ending."""
    result: Future[Any] = Future()
    result.set_running_or_notify_cancel()

    def body() -> None:
        try:
            result.set_result(work())
        except StopIteration as error:  # which no future takes
            result.set_exception(RuntimeError(repr(error)))
        except BaseException as error:  # SystemExit, too, is for the caller
            result.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    return await asyncio.wrap_future(result)


class Plugins:
    """The loaded plugins, what they registered, and the calls to their hooks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.manager = pluggy.PluginManager("bossbot")
        self.manager.add_hookspecs(Hooks)
        for name in HOOKS:  # every hook may ask for these two as well
            getattr(self.manager.hook, name).spec.argnames += ("config", "settings")
        self.all: dict[str, Plugin] = {}

    def registered(self, kind: str) -> dict[str, Any]:
        """Everything of a kind (engines, platforms, subcommands) by name, in order."""
        things = [t for plugin in self.all.values() for t in getattr(plugin, kind)]
        return {thing.name: thing for thing in sorted(things, key=lambda t: t.name)}

    def load(self) -> None:
        """Load every file of the plugins folder; a bad one is off, the others run.
        Raises StartError when the folder is missing, or open to anyone."""
        folder = self.settings.plugins_dir
        if not folder.is_dir():
            raise StartError(f"{folder} is missing. Set plugins_dir, or restore it.")
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not self.settings.allow_writable_plugins:
            raise StartError(
                f"{folder}: anyone on this machine can write plugins there, and so run "
                f"code as you. Run: chmod o-w {folder} (or set allow_writable_plugins)."
            )
        for path in sorted(folder.glob("[!_.]*.py")):
            self.load_file(path)
        named = {*self.settings.plugins, *self.settings.disabled_plugins}
        for stem in sorted(named - self.all.keys()):
            hint = did_you_mean(stem, self.all)
            logger.warning(
                "the settings name a plugin {} that is not there{}", stem, hint
            )

    def load_file(self, path: Path) -> Plugin:
        """Load one plugin, or load it again: what it registered is replaced whole."""
        stem = path.stem
        self.switch_off(stem, "")
        plugin = self.all[stem] = Plugin(stem)
        if stem in self.settings.disabled_plugins:
            plugin.off = "disabled in the settings"
            return plugin
        try:
            module = import_plugin(path)
            self.manager.register(module, stem)
            plugin.hooks = self._check_hooks(module)
            plugin.config = self._configure(stem, module)
            self._register(plugin)
        # Anything may happen in a file from elsewhere, sys.exit() too.
        except (Exception, SystemExit) as error:
            self._give_up(stem, error)
        return self.all[stem]

    def switch_off(self, stem: str, reason: str) -> None:
        """Take back all that a plugin registered, but for its commands in Discord."""
        if self.manager.has_plugin(stem):
            self.manager.unregister(name=stem)
        if stem in self.all:
            self.all[stem] = Plugin(stem, off=redact(reason))

    def _give_up(self, stem: str, error: BaseException) -> None:
        """Switch off a plugin for what it has just raised."""
        self.switch_off(stem, f"{type(error).__name__}: {error}")
        ours = isinstance(error, PluginError)
        logger.opt(exception=not ours).error("{} is off: {}", stem, self.all[stem].off)

    def _check_hooks(self, module: types.ModuleType) -> list[str]:
        """The hooks a module implements; raises PluginError for a likely mistake."""
        hooks = []
        for name, value in vars(module).items():
            options = getattr(value, "bossbot_impl", None)
            if options is None:
                if name in HOOKS and inspect.isfunction(value):
                    raise PluginError(f"{name}() is a hook: put @hookimpl above it")
                continue
            if name not in HOOKS:
                raise PluginError(f"no hook {name}(){did_you_mean(name, HOOKS)}")
            if options["wrapper"] or options["hookwrapper"]:
                raise PluginError(f"{name}(): hook wrappers are not supported")
            if value.__module__ != module.__name__:
                raise PluginError(f"{name}() is imported from another module")
            hooks.append(name)
        return hooks

    def _configure(self, stem: str, module: types.ModuleType) -> PluginConfig:
        """The plugin's settings, checked by its ``Config``."""
        model = getattr(module, "Config", PluginConfig)
        try:
            config = model(**self.settings.plugins.get(stem, {}))
        except ValidationError as error:
            wrong = "; ".join(explain(error, known=model.model_fields))
            raise PluginError(f"[plugins.{stem}] {wrong}") from None
        assert isinstance(config, PluginConfig), "Config derives from PluginConfig"
        return config

    def _register(self, plugin: Plugin) -> None:
        """Fill the plugin's registrations; nothing is kept when one is wrong."""
        for kind in ("engines", "platforms", "subcommands"):
            for impl in self._impls(f"register_{kind}", plugin.stem):
                for thing in self._invoke(impl, plugin):
                    if thing.name in self.registered(kind):
                        raise PluginError(f"{kind}: {thing.name!r} is there already")
                    getattr(plugin, kind).append(thing)
        for platform in plugin.platforms:
            if not re.match(platform.pattern, platform.example, re.IGNORECASE):
                raise PluginError(f"{platform.name}: the pattern misses the example")
        for impl in self._impls("register_guild_settings", plugin.stem):
            plugin.guild_settings = self._invoke(impl, plugin)
            settings = plugin.guild_settings()  # every field has a default
            assert isinstance(settings, PluginConfig), "it derives from PluginConfig"

    def _impls(self, hook: str, stem: str | None = None) -> list[pluggy.HookImpl]:
        """Implementations in the order of calls: tryfirst, then by name, trylast."""
        impls = getattr(self.manager.hook, hook).get_hookimpls()
        return sorted(
            (impl for impl in impls if stem in (None, impl.plugin_name)),
            key=lambda impl: (impl.trylast - impl.tryfirst, impl.plugin_name),
        )

    def _invoke(self, impl: pluggy.HookImpl, plugin: Plugin, **values: Any) -> Any:
        """Call an implementation with the arguments it asks for."""
        values |= {"config": plugin.config, "settings": self.settings}
        return impl.function(*(values[name] for name in impl.argnames))

    async def _call(self, impl: pluggy.HookImpl, hook: str, **values: Any) -> Any:
        """One implementation's answer, or None when it failed, which is logged with its
        name; raises what a hook may say, Refused and JobFailed."""
        plugin = self.all[impl.plugin_name]
        timeout_s = HOOK_LIMITS_S.get(hook, HOOK_LIMIT_S)
        if hook == "process_files":
            timeout_s = self.settings.process_timeout_s
        waits = inspect.iscoroutinefunction(impl.function)
        work = partial(self._invoke, impl, plugin, **values)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await (work() if waits else in_thread(work))
            plugin.failures = 0
            return answer
        except (Refused, JobFailed):
            raise
        # The boundary of a plugin: its failure must not become the job's.
        except (Exception, SystemExit) as error:
            plugin.failures += 1
            what = f"{type(error).__name__}: {error}"
            logger.exception("plugin {} failed in {}", plugin.stem, hook)
            if plugin.failures >= MAX_HOOK_FAILURES:
                logger.error("plugin {} is switched off: {}", plugin.stem, what)
                self.switch_off(plugin.stem, f"{hook} failed too often: {what}")
            return None

    async def call(self, hook: str, **values: Any) -> list[Any]:
        """The answers of all plugins that gave one, in order."""
        answers = [await self._call(i, hook, **values) for i in self._impls(hook)]
        return [answer for answer in answers if answer is not None]

    async def call_first(self, hook: str, **values: Any) -> Any:
        """The first answer that is not None."""
        for impl in self._impls(hook):
            if (answer := await self._call(impl, hook, **values)) is not None:
                return answer
        return None

    async def fold(self, hook: str, folded: str, **values: Any) -> Any:
        """What is left of ``values[folded]`` when each plugin has changed it."""
        for impl in self._impls(hook):
            if (answer := await self._call(impl, hook, **values)) is not None:
                values[folded] = answer
        return values[folded]

    def call_with_owner(self, hook: str, **values: Any) -> Iterable[tuple[Plugin, Any]]:
        """Each plugin with its answer, at once; a failing plugin is switched off."""
        for impl in self._impls(hook):
            plugin = self.all[impl.plugin_name]
            try:
                yield plugin, self._invoke(impl, plugin, **values)
            except (Exception, SystemExit) as error:  # the boundary of a plugin
                self._give_up(plugin.stem, error)


# ── Queue ──────────────────────────────────────────────────────────────────────────


class Queue(Protocol):
    """Where jobs wait. Claims carry a lease and a fence, so that workers on several
    machines can share one; statistics and deliveries stay with the bot."""

    async def add(self, job: Job) -> bool:
        """Commit a new job; False if its request was taken before. Raises Refused when
        it cannot be stored, QueueFull when max_queue_size jobs of the guild wait."""

    async def claim(self, worker: str, lease_s: float) -> Job | None:
        """Take the next job, now ``downloading``, with a new fence; None if there is
        none or every slot is taken. Highest priority first, then the guild with the
        fewest running, then the oldest."""

    async def renew(self, job: Job, lease_s: float) -> bool:
        """Store a claimed job's state and prolong its lease; False if it was lost."""

    async def release(self, job: Job, delay_s: float = 0) -> bool:
        """Give a claimed job back to wait, for ``delay_s`` at least."""

    async def finish(self, job: Job) -> bool:
        """Store a claimed job that is completed, failed or cancelled."""

    async def get(self, job_id: str) -> Job | None:
        """A job as it is stored."""

    async def list(
        self, guild_id: int | None = None, statuses: Sequence[Status] = ()
    ) -> list[Job]:
        """Jobs in the order they came, of one guild or all, of some statuses or all."""

    async def position(self, job_id: str) -> int:
        """A waiting job's place in its guild, from 1; 0 when it does not wait."""

    async def move(self, job_id: str, priority: Priority) -> bool:
        """Change a waiting job's priority."""

    async def cancel(self, job_id: str) -> Job | None:
        """Make a job ``cancelled``, waiting or running (its worker sees the change);
        None when it was uploading or ended already."""

    async def patch(self, job_id: str, **columns: Any) -> None:
        """Set fields that no claim guards, such as status_message_id."""

    async def recover(self) -> Sequence[Job]:
        """Let what an earlier process of this bot left run again, in fresh attempts;
        returns these jobs."""

    def changes(self) -> AsyncIterator[str]:
        """The ids of jobs as they change; "" at first and now and then, since a
        delayed job may be due."""


class Database(Protocol):
    """The bot's SQLite file, for what stays with the bot whatever the queue is: the
    deliveries, facts, statistics. Tables: ``plugins/database.py``."""

    async def open(self) -> None:
        """Open, check and migrate; raises StartError when the file is locked by another
        bot, newer than this one, or damaged."""

    async def close(self) -> None:
        """Close; harmless when it is not open."""

    def transaction(self) -> AbstractAsyncContextManager[aiosqlite.Connection]:
        """All or nothing, one at a time."""

    async def one(self, sql: str, *values: Any, **named: Any) -> sqlite3.Row | None:
        """The first row, or None; a change is committed at once."""

    async def all(self, sql: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        """Every row; a change is committed at once."""

    async def fact(self, key: str, value: str | None = None) -> str:
        """A stored fact, "" when there is none; ``value`` replaces it."""


# ── Text and storage ────────────────────────────────────────────────────────────────────────


def unsupported(url: str) -> str:
    """What a member reads when nothing can fetch a link."""
    return f"Not supported: I know no way to download from {urlsplit(url).hostname}."


def public_url(job: Job) -> str:
    """A job's link for logs and files: what follows "?" or "#" may hold secrets, except
    on a known platform, which has dropped all but what names the post."""
    return job.url if job.platform else re.split(r"[?#]", job.url)[0]


def format_size(size: float) -> str:
    """ "20 MiB", "1.5 MiB": what Discord and the settings count in."""
    return ByteSize(size).human_readable(separator=" ").replace(".0 ", " ")


def format_time(seconds: float) -> str:
    """ "0.8 s", "8 s", "2 min 5 s", "1 h 4 min"."""
    if seconds < 3:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{n} {unit}" for n, unit in parts if n)


def one_line(text: str, *, fold: bool = True) -> str:
    """Text from outside without control, bidirectional and zero-width characters; white
    space is turned to spaces, and folded."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)  # ANSI colours
    text = "".join(
        char
        for char in re.sub(r"\s", " ", text)
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return " ".join(text.split()) if fold else text


def escape(text: str, limit: int = 200) -> str:
    """Text from outside, safe to show in Discord: one line of ``limit`` characters at
    most, then escaped, so that no mention, link or mark-up works."""
    text = one_line(text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = re.sub(r"([\\*_~`|>\[\]()#<@])", r"\\\1", text)
    text = re.sub(r"(?i)(discord(?:app)?)\.(gg|com/invite)", r"\1\\.\2", text)
    return text.replace("//", "\\/\\/")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file whole, readable by its owner alone; a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Storage(Protocol):
    """Where files are. Its methods block: call them in a thread."""

    def inspect(self, path: Path, folder: Path) -> MediaFile:
        """A file, checked: media or plain text, whatever its name; raises JobFailed when
        it is not a regular file inside the folder, is empty, or holds no media."""

    def attempt_folder(self, job: Job) -> Path:
        """A new folder for this attempt alone, with ``files`` and ``home`` in it."""

    def forget_attempt(self, job: Job) -> None:
        """Remove the folders of this attempt and of older ones, which are dead."""

    def place(
        self, job: Job, files: Sequence[MediaFile], folder: Path
    ) -> list[MediaFile]:
        """Move files into a folder, under their final names."""

    def keep(
        self, job: Job, files: Sequence[MediaFile], facts: dict[str, Any]
    ) -> list[MediaFile]:
        """Move a job's files to where they stay, with what is known of them (see
        ``Report.info``); sets the job's folder."""

    def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """Files that ``keep`` left, by name; raises FileNotFoundError if one is gone."""

    def guild_settings(
        self, guild_id: int, stem: str, model: type[PluginConfig]
    ) -> Any:
        """A guild's settings of one plugin, as a ``model``; what is wrong is ignored."""

    def set_guild_setting(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str, value: Any
    ) -> Any:
        """Store one value of a guild; returns the settings. Raises Refused, in words for
        the member, when the key or the value is wrong."""


# ── Child processes ────────────────────────────────────────────────────────────────


@dataclass
class Download:
    """What an attempt brought."""

    files: list[MediaFile] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # see Report.info
    failures: list[JobFailed] = field(default_factory=list)  # of single items


class Runner(Protocol):
    """Runs the engines, and the programs of jobs, away from the bot: fenced, limited,
    and dead when the bot is."""

    def start(self) -> None:
        """Get ready ahead of the first call."""

    async def stop(self) -> None:
        """End all that runs."""

    async def supports(self, urls: Sequence[str], without: str = "") -> list[str]:
        """For each link the first engine with an extractor of its own for it, else the
        generic one; "" if there is none. ``without`` asks for others than that engine,
        and for no generic one."""

    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """Each engine's version, and its age in days if that can be told."""

    async def fetch(self, job: Job, tell: Callable[[Progress], None]) -> Download:
        """Download a job's files into its attempt's folder, each checked; raises
        JobFailed when there is nothing to post, neither file nor text."""

    async def run(self, job: Job, argv: Sequence[str]) -> dict[str, Any]:
        """Run a program for a job; returns its exit, stdout and stderr (the last 16,384
        characters of each). Raises JobFailed when it was killed."""


# ── Pipeline ───────────────────────────────────────────────────────────────────────


class Route(NamedTuple):
    """Where a link goes."""

    url: str  # normalised
    platform: str  # "" for one that no platform knows
    engine: str  # "" when nothing can fetch it


class Router(Protocol):
    """Says where links go, and which may not be opened."""

    async def route_all(self, links: Sequence[str]) -> list[Route | Refused]:
        """The route of each link, or why it is refused, in words for the member."""


class Worker(Protocol):
    """Carries jobs from the queue to their channels."""

    async def start(self) -> None:
        """Take up the jobs that are there, the unfinished ones first; then what comes."""

    async def stop(self, grace_s: float) -> None:
        """Claim nothing more, give running downloads back to the queue, let uploads
        end within ``grace_s``; what is left is taken up at the next start."""

    async def wake(self) -> None:
        """Claim at once what there is room for."""

    async def attempt(self, job: Job, tell: Callable[[Progress], None]) -> Download:
        """Download and process a job's files here and now, a second time where that may
        help; sets the job's title. Raises JobFailed."""


class Courier(Protocol):
    """Brings files to where they were asked for."""

    async def freeze(self, job: Job, files: list[MediaFile], facts: Download) -> None:
        """Decide and store the messages a job will be posted as."""

    async def post(self, job: Job) -> None:
        """Send what is not sent yet; raises JobFailed when nothing can be."""


class Accepted(NamedTuple):
    """How a link was taken in: as a job, or with an answer in its place."""

    job: Job | None
    position: int = 0  # in the queue, from 1; 0 when it started at once
    answer: str = ""


class Pipeline:
    """Takes links in, and holds the parts that carry them to their channels."""

    router: Router
    runner: Runner
    storage: Storage
    db: Database
    queue: Queue
    worker: Worker
    courier: Courier

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.bot: BossBot
        self._announcing: dict[str, asyncio.Task[None]] = {}

    def __getattr__(self, name: str) -> Any:
        """A part, from the plugin that registers it, when it is first needed; raises
        StartError when no plugin does."""
        if name not in Pipeline.__annotations__:
            raise AttributeError(name)
        for _, part in self.plugins.call_with_owner(f"register_{name}", pipeline=self):
            if part is not None:
                setattr(self, name, part)
                return part
        raise StartError(f"No plugin offers register_{name}(): see bossbot.py plugins.")

    async def start(self, bot: BossBot) -> None:
        """Open the database and take up the jobs that are in it; raises StartError when
        that cannot be done, or a part is missing."""
        self.bot = bot
        for part in Pipeline.__annotations__:
            getattr(self, part)
        await self.db.open()
        self.runner.start()
        await self.worker.start()

    async def stop(self, grace_s: float = 20) -> None:
        """End what was started; see ``Worker.stop``."""
        if "worker" in vars(self):
            await self.worker.stop(grace_s)
        if self._announcing:
            await asyncio.wait(list(self._announcing.values()), timeout=3)
        if "runner" in vars(self):
            await self.runner.stop()
        if "db" in vars(self):
            await self.db.close()

    # Intake

    async def route(self, link: str) -> Route:
        """Where a member's link goes; raises Refused when it may not be opened, or
        nothing can fetch it."""
        route = (await self.router.route_all([link]))[0]
        if isinstance(route, Refused):
            raise route
        if not route.engine:
            raise Refused(unsupported(route.url))
        return route

    async def intake(
        self,
        link: str,
        *,
        guild_id: int,
        channel_id: int,
        user_id: int,
        request_key: str,
        message_id: int = 0,
        priority: Priority = Priority.NORMAL,
    ) -> Accepted | None:
        """Take in one link: once this returns a job, it is committed. None when the
        request was taken before. Raises Refused with the reason, for the member."""
        job = Job(
            secrets.token_hex(5),
            *await self.route(link),
            guild_id=guild_id,
            channel_id=channel_id,
            user_id=user_id,
            request_key=request_key,
            message_id=message_id,
            priority=priority,
        )
        await self.plugins.call("check_job", job=job)
        if answer := await self.plugins.call_first("answer_job", job=job):
            return Accepted(None, answer=str(answer))
        if not await self.queue.add(job):
            return None
        await self.announce(job, None)
        position = 0
        with logger.catch(message="a queued link could not be started at once"):
            await self.worker.wake()
            position = await self.queue.position(job.id)
        return Accepted(job, position)

    async def announce(self, job: Job, previous: Status | None) -> None:
        """Log a committed change and tell the plugins, of each job in order."""
        logger.bind(job=job.id, guild=job.guild_id, user=job.user_id).debug(
            "{} -> {} {}", previous, job.status, public_url(job)
        )
        snapshot, earlier = dataclasses.replace(job), self._announcing.get(job.id)

        async def tell() -> None:
            if earlier:
                await asyncio.wait([earlier])
            await self.plugins.call("job_changed", job=snapshot, previous=previous)
            if self._announcing.get(job.id) is task:
                del self._announcing[job.id]

        task = self._announcing[job.id] = asyncio.create_task(tell())


# ── Command line ───────────────────────────────────────────────────────────────────

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_secrets: set[str] = set()  # what no log line may hold
SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|session|cookie(?!s_file)|auth|api_?key"
)


def secret_values(thing: Any) -> Iterable[str]:
    """Every secret in the settings, to be kept out of the log."""
    if isinstance(thing, SecretStr):
        yield thing.get_secret_value()
    elif isinstance(thing, BaseModel):
        yield from secret_values(dict(thing))
    elif isinstance(thing, (dict, list, tuple)):  # raw ones do not say what is secret
        pairs = thing.items() if isinstance(thing, dict) else enumerate(thing)
        for key, value in pairs:
            if isinstance(value, str) and SECRET_NAME.search(str(key)):
                yield value
            yield from secret_values(value)


def redact(text: str) -> str:
    """Text without known secrets, links' passwords and queries, interaction tokens."""
    for secret in sorted(_secrets, key=len, reverse=True):  # one may begin another
        if len(secret) > 3:
            text = text.replace(secret, "[secret]")
    text = re.sub(r"://[^\s/'\"]+@", "://[secret]@", text)
    text = without_queries(text)
    text = re.sub(r"((?:webhooks|interactions)/\d+/)[\w\-.]{20,}", r"\1[secret]", text)
    return re.sub(r"('token': ')[^']+", r"\1[secret]", text)


def prepare_data(data: Path) -> None:
    """Make the folders of the data folder; raises StartError when it cannot be done."""
    try:
        for name in ("temp", "downloads", "guilds", "logs", "cache", ".locks"):
            write_atomically(probe := data / name / ".writable", b"")
            probe.unlink()
    except OSError as error:
        raise StartError(
            f"{data / name}: {error.strerror}. The bot must be able to write there: "
            "change its owner (chown), or set data_dir."
        ) from error


class _ToLoguru(logging.Handler):
    """Passes what libraries log on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in LEVELS else record.levelno
        log = logger.opt(exception=record.exc_info)
        log.log(level, "{}: {}", record.name, record.getMessage())


def _load_plugins(settings: Settings, debug: bool, console: TextIO) -> Plugins:
    """The plugins, at work on the log, which also gets what was said before."""
    unsaid: list[Any] = []
    logger.remove()
    logger.add(unsaid.append, level="DEBUG")
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    _secrets.update(secret_values(settings))
    plugins = Plugins(settings)
    plugins.load()
    for plugin in plugins.all.values():
        _secrets.update(secret_values(plugin.config))
    logger.remove()
    logs = plugins.call_with_owner("register_log", debug=debug, console=console)
    if not any(written for _, written in logs):
        logger.add(lambda text: print(redact(text), file=sys.stderr), diagnose=False)
    for line in (message.record for message in unsaid):
        late, level = logger.opt(exception=line["exception"]), line["level"]
        late.log(
            level.name if level.name in LEVELS else level.no, "{}", line["message"]
        )
    return plugins


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bot or a command; returns the exit code: 0, 1 for a failed command, 2
    where the bot cannot go on, 130 after Ctrl-C."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, metavar="PATH", help="a settings file")
    early.add_argument("--debug", action="store_true", help="log all, with variables")
    known, rest = early.parse_known_args(argv)  # the plugins' commands come later
    parser = argparse.ArgumentParser("bossbot.py", allow_abbrev=False, parents=[early])
    parser.description = "A Discord media bot."
    os.umask(0o077)  # what the bot writes is its owner's
    try:
        settings = load_settings(known.config)
        prepare_data(settings.data_dir)
        answers = any(word != "run" and not word.startswith("-") for word in rest)
        console = sys.stderr if answers else sys.stdout
        plugins = _load_plugins(settings, known.debug, console)
        subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
        subcommands: dict[str, Subcommand] = plugins.registered("subcommands")
        for command in subcommands.values():
            try:
                subparser = subparsers.add_parser(command.name, help=command.help)
                command.add_arguments(subparser)
            except (Exception, SystemExit) as error:  # the boundary of a plugin
                logger.error("the command {} is broken: {!r}", command.name, error)
        arguments = parser.parse_args(rest)
        name = arguments.command or "run"
        terminal = sys.stdin is not None and sys.stdin.isatty()
        first = name == "run" and not settings.discord_token and terminal
        name = "setup" if first else name
        if name not in subcommands:
            raise StartError(
                f"No plugin offers {name}: restore {settings.plugins_dir}."
            )
        pipeline = Pipeline(settings, plugins)
        code = asyncio.run(subcommands[name].run(pipeline, arguments))
        return main(argv) if first and code == 0 else code
    except BossbotError as error:
        detail = error.detail if isinstance(error, JobFailed) else ""
        print(error, f"({redact(detail)})" if detail else "", file=sys.stderr)
        return 2 if isinstance(error, StartError) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    import bossbot  # plugins and core share one module, not this __main__

    sys.exit(bossbot.main())
