#!/usr/bin/env python3
"""Boss-Bot: paste a link in Discord, and the media behind it is posted there.

This file is the whole core, to be read from top to bottom: settings, hooks, plugins,
queue, storage, child processes, the pipeline that carries a link to its channel, the
Discord client, the command line. All else is a plugin: a file in ``plugins/``.

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
import errno
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import ipaddress
import json
import logging
import os
import random
import re
import resource
import secrets
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import tomllib
import traceback
import types
import unicodedata
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum, StrEnum
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    Protocol,
    cast,
)
from urllib.parse import urlsplit, urlunsplit

import aiosqlite
import filetype
import pluggy
import tomli_w
from loguru import logger
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
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
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

if TYPE_CHECKING:  # make_bot imports them
    import aiohttp  # noqa: TC004
    import discord  # noqa: TC004
    from discord import app_commands  # noqa: TC004
    from discord.ext import commands  # noqa: TC004

    _Bot = commands.Bot
else:
    _Bot = object  # make_bot mixes the real one in

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
    """An attempt ended without its media.

    Args:
        cause: what kind of failure; decides the member's sentence.
        detail: for the log, in the words of the engine.
        message: replaces the cause's sentence.
        retry_after_s: when the site said how long to wait.
    """

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
# These hold a download slot; an upload holds none.
SLOT_STATUSES = (Status.DOWNLOADING, Status.PROCESSING)


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
    guild_id: int  # 0 in a direct message
    channel_id: int  # 0 when the job has no channel (the command line)
    user_id: int
    request_key: str  # one per link of a message or interaction; never taken twice
    message_id: int = 0  # the request to reply to; 0 for none
    status_message_id: int = 0  # our own message that shows the progress
    status: Status = Status.QUEUED
    priority: Priority = Priority.NORMAL
    attempts: int = 0
    crashes: int = 0  # attempts that ended with the whole bot
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
    created_at: float = 0
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

    @property
    def eta_s(self) -> float | None:
        if not self.total_bytes or not self.speed_bytes_s:
            return None
        return max(self.total_bytes - self.done_bytes, 0) / self.speed_bytes_s


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


NO_PLATFORM = Platform("", "", "", "")


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
        """Tell about the post: title, uploader, date, text, items (how many there are,
        which may be more than max_items)."""

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
    return re.sub(r"\?[\w%.~\[\]-]+=[^\s'\"<>]*", "", text)


def age_days(package: str, version: str) -> int | None:
    """Days since a release whose version is its date, else since it was installed;
    None for what is no installed package."""
    today = datetime.now(UTC).date()
    with contextlib.suppress(ValueError):  # it only looks like a date
        if found := re.match(r"(20\d\d)\.(\d\d?)\.(\d\d?)(?!\d)", version):
            return (today - date(*(int(part) for part in found.groups()))).days
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        folder = Path(str(importlib.metadata.distribution(package).locate_file("")))
        installed = folder / f"{package.replace('-', '_')}-{version}.dist-info"
        return (today - date.fromtimestamp(installed.stat().st_mtime)).days
    return None


def cause_for_status(status: int) -> Cause:
    """What an HTTP status of 400 or more means to who pasted the link."""
    match status:
        case 401 | 402 | 403 | 407:
            # 403 also means private, or an address that the site does not like; a
            # login is what helps most often.
            return Cause.LOGIN
        case 400 | 404 | 410 | 414:
            return Cause.GONE
        case 408 | 504 | 524:
            return Cause.TIMED_OUT
        case 420 | 429:
            return Cause.RATE_LIMITED
        case 451:
            return Cause.REGION
    # The other 4xx say that the site wants to be asked in another way.
    return Cause.NETWORK if status >= 500 else Cause.ENGINE_OUTDATED


def first_cause(text: str, table: Iterable[tuple[str, Cause]]) -> Cause | None:
    """The cause of the first pattern found in the text, whatever the case; ``^`` and
    ``$`` match at each line."""
    flags = re.IGNORECASE | re.MULTILINE
    return next(
        (cause for words, cause in table if re.search(words, text, flags)), None
    )


def wait_asked_s(headers: Mapping[str, str]) -> float | None:
    """How long the headers of an answer ask to wait: ``Retry-After`` in seconds or as
    a date, or the Unix time in ``x-rate-limit-reset``; None when they do not say."""
    given = {name.lower(): value.strip() for name, value in headers.items()}
    after, reset = given.get("retry-after", ""), given.get("x-rate-limit-reset", "")
    with contextlib.suppress(ValueError):
        if after:
            if after.isdigit():
                return float(after)
            return max(parsedate_to_datetime(after).timestamp() - time.time(), 0)
        if reset:
            return max(float(reset) - time.time(), 0)
    return None


# ── Settings ───────────────────────────────────────────────────────────────────────

HERE = Path(__file__).resolve().parent

# A path in a setting starts at this file's folder, whatever the working directory.
OwnPath = Annotated[Path, AfterValidator(lambda path: HERE / path.expanduser())]


def _split_commas(value: Any) -> Any:
    """A list from the environment may be "a,b" or JSON."""
    if isinstance(value, str):
        if value.strip()[:1] == "[":
            return json.loads(value)
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class PluginConfig(BaseModel):
    """The base of a plugin's ``Config``: its settings in ``[plugins.<stem>]``."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PlatformConfig(PluginConfig):
    """What the host can set for every platform."""

    cookies_file: OwnPath | None = Field(
        None, description="cookies.txt of a logged-in account"
    )
    proxy: str | None = Field(None, description="proxy for this site")
    sleep_request_s: float = Field(0, ge=0, description="pause between two requests")
    options: dict[str, Any] = Field(
        default_factory=dict, description="the engine's own options for this site"
    )


class Settings(BaseSettings):
    """Every setting of the core; ``config.toml`` explains each."""

    model_config = SettingsConfigDict(
        env_prefix="BOSS_BOT_",
        env_nested_delimiter="__",
        dotenv_filtering="match_prefix",
        extra="forbid",
        validate_default=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    discord_token: SecretStr | None = None
    command_prefix: str = Field("$", min_length=1, max_length=10)
    message_content: bool = True
    shards: bool = False
    data_dir: OwnPath = Path("data")
    plugins_dir: OwnPath = Path("plugins")
    disabled_plugins: Annotated[list[str], NoDecode, BeforeValidator(_split_commas)] = (
        Field(default_factory=list)
    )
    max_concurrent_downloads: int = Field(5, ge=1, le=100)
    max_concurrent_per_guild: int = Field(3, ge=1, le=100)
    max_queue_size: int = Field(50, ge=1)
    max_items: int = Field(50, ge=1)
    max_download_size: ByteSize = ByteSize(200 * 2**20)
    max_job_size: ByteSize = ByteSize(500 * 2**20)
    max_file_size: ByteSize = ByteSize(50 * 2**20)
    upload_limits: Annotated[
        list[ByteSize], NoDecode, BeforeValidator(_split_commas)
    ] = Field(
        # Discord, 2026-09: per file, by the guild's boost tier 0 to 3
        default_factory=lambda: [ByteSize(n * 2**20) for n in (20, 20, 50, 100)],
        min_length=4,
        max_length=4,
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
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **named: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """``Settings(...)`` takes what it is given; ``load_settings`` does the rest."""
        return (init_settings,)


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
    dotenv = root / ".env"
    try:
        sources: list[tuple[str, str, dict[str, Any]]] = [  # name, text, values
            ("the environment", "", EnvSettingsSource(Settings)()),
            (str(dotenv), "", DotEnvSettingsSource(Settings, env_file=dotenv)()),
        ]
    except (SettingsError, ValueError) as error:
        raise StartError(
            f"The environment or {dotenv}: {error}. Lists and tables in a variable are "
            "JSON; one setting of a plugin is BOSS_BOT_PLUGINS__NAME__KEY."
        ) from None
    main = _read_toml(config or root / "config.toml")
    data_dir = _merge([main[2], sources[1][2], sources[0][2]]).get("data_dir", "data")
    data = root / Path(str(data_dir)).expanduser()
    sources += [_read_toml(data / "config.toml"), main]
    for name, _, values in sources[1:]:
        if any(_secret_values(values)) and _close_to_others(Path(name)):
            print(f"{name} was readable by others: set to 0600", file=sys.stderr)
    problems = [
        f"{name}: discord_token belongs in .env or the environment, not in this file"
        for name, _, values in sources[2:]
        if "discord_token" in values
    ]
    for variable in os.environ:  # pydantic-settings names those of .env alone
        key = variable.lower().removeprefix("boss_bot_").split("__")[0]
        if variable.upper().startswith("BOSS_BOT_") and key not in _FIELDS:
            problems.append(f"the environment: unknown {variable}{_did_you_mean(key)}")
    settings = None
    try:
        settings = Settings(**_merge([values for _, _, values in reversed(sources)]))
    except ValidationError as error:
        problems += _explain(error, sources)
    if settings is None or problems:
        raise StartError("\n".join(["The settings have mistakes:", *problems]))
    return settings


_FIELDS = tuple(Settings.model_fields)


def _close_to_others(path: Path) -> bool:
    """Whether a file with secrets had to be set to 0600."""
    if not path.is_file() or not path.stat().st_mode & 0o077:
        return False
    path.chmod(0o600)
    return True


def _read_toml(path: Path) -> tuple[str, str, dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
        return str(path), text, tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return str(path), "", {}
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise StartError(
            f"{path}: {error}. Correct the file and start again."
        ) from None


def _merge(tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One table of many; the later ones win, tables inside are merged."""
    merged: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            if isinstance(value, dict) and isinstance(merged.get(key), dict):
                value = _merge([merged[key], value])
            merged[key] = value
    return merged


def _did_you_mean(key: str, known: Iterable[str] = _FIELDS) -> str:
    close = difflib.get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _explain(
    error: ValidationError,
    sources: Sequence[tuple[str, str, dict[str, Any]]] = (),
    known: Iterable[str] = (),
) -> list[str]:
    """A line for each wrong value: file, line, key, what was expected."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        where, most = "", 0
        for name, text, values in sources:
            depth, inside = 0, values
            while (
                depth < len(path) and isinstance(inside, dict) and path[depth] in inside
            ):
                inside, depth = inside[path[depth]], depth + 1
            if depth > most:
                line = _line_of(text, path)
                where, most = f"{name}{f', line {line}' if line else ''}: ", depth
        key = ".".join(path)
        wrong = item["msg"]
        if item["type"] == "extra_forbidden":
            wrong = "no such setting" + _did_you_mean(path[-1], known or _FIELDS)
        lines.append(f"{where}{key}: {wrong}")
    return lines


def _line_of(text: str, path: Sequence[str]) -> int | None:
    """The line of a key in TOML text, since tomllib keeps none."""
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([\w.\-\s\"]+)\]", line):
            table = [part.strip(' "') for part in header[1].split(".")]
        elif key := re.match(r"\s*([\w.\-]+)\s*=", line):
            full = [*table, *key[1].split(".")]
            if full == list(path)[: len(full)]:
                return number
    return None


# ── Hooks ──────────────────────────────────────────────────────────────────────────

hookspec = pluggy.HookspecMarker("bossbot")
hookimpl = pluggy.HookimplMarker("bossbot")

# The seconds an implementation may take; process_files has its setting.
HOOK_TIMEOUTS_S = {
    "check_job": 5,
    "check_upload": 5,
    "answer_job": 5,
    "bot_stopping": 3,
}
HOOK_TIMEOUT_S = 30.0
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
    def register_guild_settings(self) -> type[BaseModel]:
        """Return a model whose fields, all with defaults, each guild can set; called
        when the plugin is loaded."""

    @hookspec(firstresult=True)
    def register_queue(self, db: Database) -> Queue:
        """Return the queue to use; called when the bot starts."""

    @hookspec(firstresult=True)
    def register_courier(self, bot: BossBot) -> Courier:
        """Return who brings files to channels; called when the bot starts."""

    @hookspec
    def register_commands(self, bot: BossBot) -> list[Any]:
        """Return cogs, commands, context menus and dynamic items; called when the bot
        has logged in, before it connects."""

    @hookspec
    def check_job(self, job: Job) -> None:
        """Raise Refused("why") to veto a job; called before it is queued."""

    @hookspec(firstresult=True)
    def answer_job(self, job: Job) -> str | None:
        """Return a text in place of a download, or None; called after check_job."""

    @hookspec
    def process_files(self, job: Job, files: list[MediaFile]) -> list[MediaFile]:
        """Return the new list of files; called after the download, each plugin with
        the list of the one before it."""

    @hookspec
    def check_upload(
        self, job: Job, files: list[MediaFile], channel: discord.abc.Messageable
    ) -> None:
        """Raise Refused("why") to veto the posting; called just before it."""

    @hookspec
    def decorate_message(self, job: Job, message: Message) -> Message:
        """Return the message that carries the files, with what you add to it; called
        before each is sent."""

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
    config: PluginConfig | None = None
    hooks: list[str] = field(default_factory=list)
    failures: int = 0
    engines: list[Engine] = field(default_factory=list)
    platforms: list[Platform] = field(default_factory=list)
    subcommands: list[Subcommand] = field(default_factory=list)
    guild_settings: type[BaseModel] | None = None


def import_plugin(path: Path) -> types.ModuleType:
    """Run a plugin's file as ``bossbot_plugins.<stem>``, afresh from disk."""
    package = types.ModuleType(PLUGIN_PACKAGE, "The plugins folder.")
    package.__path__ = [str(path.parent)]
    sys.modules.setdefault(PLUGIN_PACKAGE, package)
    name = f"{PLUGIN_PACKAGE}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of a function that may block, from a thread of its own: a plugin that
    blocks for ever takes no place from others, nor does it keep the bot from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not result.done():  # else the time is up and nobody waits
            set_(value)

    def body() -> None:
        set_: Callable[[Any], None] = result.set_result
        try:
            value = work()
        except BaseException as error:  # SystemExit, too, is for the caller
            plain = isinstance(error, Exception) and not isinstance(
                error, StopIteration
            )
            set_, value = (
                result.set_exception,
                error if plain else PluginError(repr(error)),
            )
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, set_, value)

    threading.Thread(target=body, daemon=True).start()
    return await result


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

    def engine_file(self, engine: str) -> Path:
        """The plugin file that registered an engine."""
        for plugin in self.all.values():
            if any(one.name == engine for one in plugin.engines):
                return self.settings.plugins_dir / f"{plugin.stem}.py"
        raise JobFailed(Cause.UNSUPPORTED, f"no engine {engine}")

    def load(self) -> None:
        """Load every file of the plugins folder; a bad one is off, the others run.

        Raises:
            StartError: when the folder is missing.
        """
        folder = self.settings.plugins_dir
        if not folder.is_dir():
            raise StartError(
                f"{folder}: the plugins folder is missing. Set plugins_dir, or restore "
                "the folder."
            )
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not self.settings.allow_writable_plugins:
            raise StartError(
                f"{folder}: anyone on this machine can write plugins there, and so run "
                f"code as you. Run: chmod o-w {folder} (or set allow_writable_plugins)."
            )
        if mode & stat.S_IWGRP:
            logger.warning("{} is writable for its group: chmod g-w", folder)
        for path in sorted(folder.glob("[!_.]*.py")):
            self.load_file(path)
        for stem in self.settings.plugins.keys() - self.all.keys():
            logger.warning("the settings have [plugins.{}], but there is none", stem)

    def load_file(self, path: Path) -> Plugin:
        """Load one plugin, or load it again: what it registered is replaced whole."""
        stem = path.stem
        self.switch_off(stem, "")
        plugin = Plugin(stem)
        if stem in self.settings.disabled_plugins:
            plugin.off = "disabled in the settings"
        else:
            # Anything may happen in a file from elsewhere, sys.exit() too.
            try:
                module = import_plugin(path)
                self.manager.register(module, stem)
                plugin.hooks = self._check_hooks(module)
                plugin.config = self._configure(stem, module)
                self._register(plugin)
            except (Exception, SystemExit) as error:
                if self.manager.has_plugin(stem):
                    self.manager.unregister(name=stem)
                plugin = Plugin(stem, off=redact(f"{type(error).__name__}: {error}"))
                known = isinstance(error, PluginError)
                logger.opt(exception=not known).error("{} is off: {}", stem, plugin.off)
        self.all[stem] = plugin
        return plugin

    def switch_off(self, stem: str, reason: str) -> None:
        """Take back all that a plugin registered."""
        if self.manager.has_plugin(stem):
            self.manager.unregister(name=stem)
        if stem in self.all:
            self.all[stem] = Plugin(stem, off=redact(reason))

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
                raise PluginError(f"no hook {name}(){_did_you_mean(name, HOOKS)}")
            if options["wrapper"] or options["hookwrapper"]:
                raise PluginError(f"{name}(): hook wrappers are not supported")
            if value.__module__ != module.__name__:
                raise PluginError(f"{name}() is imported from another module")
            hooks.append(name)
        return hooks

    def _configure(self, stem: str, module: types.ModuleType) -> PluginConfig | None:
        """The plugin's settings, checked by its ``Config``."""
        table = self.settings.plugins.get(stem, {})
        model = getattr(module, "Config", None)
        if model is None:
            if table:
                raise PluginError(f"it has no settings, but [plugins.{stem}] has some")
            return None
        try:
            config = model(**table)
        except ValidationError as error:
            wrong = "; ".join(_explain(error, known=model.model_fields))
            raise PluginError(f"[plugins.{stem}] {wrong}") from None
        assert isinstance(config, PluginConfig), "Config derives from PluginConfig"
        return config

    def _register(self, plugin: Plugin) -> None:
        """Fill the plugin's registrations; nothing is kept when one is wrong."""
        for kind in ("engines", "platforms", "subcommands"):
            for impl in self._impls(f"register_{kind}", plugin.stem):
                things = self._invoke(impl, plugin)
                names = [*self.registered(kind)] + [thing.name for thing in things]
                if len(names) != len(set(names)):
                    raise PluginError(f"{kind}: a name of {names} is taken already")
                getattr(plugin, kind).extend(things)
        for platform in plugin.platforms:
            if not re.match(platform.pattern, platform.example, re.IGNORECASE):
                raise PluginError(f"{platform.name}: the pattern misses the example")
        for impl in self._impls("register_guild_settings", plugin.stem):
            plugin.guild_settings = self._invoke(impl, plugin)
            plugin.guild_settings()  # every field has a default

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
        """One implementation's answer, or None when it failed; names who failed.

        Raises:
            Refused, JobFailed: what a hook may say.
        """
        plugin = self.all[impl.plugin_name]
        timeout_s = HOOK_TIMEOUTS_S.get(hook, HOOK_TIMEOUT_S)
        if hook == "process_files":
            timeout_s = self.settings.process_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if inspect.iscoroutinefunction(impl.function):
                    answer = await self._invoke(impl, plugin, **values)
                else:
                    answer = await in_thread(
                        partial(self._invoke, impl, plugin, **values)
                    )
            plugin.failures = 0
            return answer
        except (Refused, JobFailed):
            raise
        # The boundary of a plugin: its failure must not become the job's.
        except (Exception, SystemExit) as error:
            plugin.failures += 1
            what = f"{type(error).__name__}: {error}"
            logger.opt(exception=True).error(
                "plugin {} failed in {}", plugin.stem, hook
            )
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
                logger.opt(exception=True).error("{} is off", plugin.stem)
                self.switch_off(plugin.stem, f"{type(error).__name__}: {error}")


# ── Queue ──────────────────────────────────────────────────────────────────────────


class Queue(Protocol):
    """Where jobs wait. Claims carry a lease and a fence, so that workers on several
    machines can share one; statistics and deliveries stay with the bot."""

    async def add(self, job: Job) -> bool:
        """Commit a new job; False if its request was taken before.

        Raises:
            QueueFull: when the guild has max_queue_size jobs waiting.
        """

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

    async def recover(self) -> None:
        """Let what an earlier process of this bot left run again, in fresh attempts."""

    def changes(self) -> AsyncIterator[str]:
        """The ids of jobs as they change; "" at first and now and then, since a
        delayed job may be due."""
        raise AssertionError("a protocol is never called")


# One script per version of the database; a new one is added at the end.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        url TEXT NOT NULL, platform TEXT NOT NULL, engine TEXT NOT NULL,
        guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
        user_id INTEGER NOT NULL, request_key TEXT NOT NULL UNIQUE,
        message_id INTEGER NOT NULL, status_message_id INTEGER NOT NULL,
        status TEXT NOT NULL, priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL, crashes INTEGER NOT NULL, fence INTEGER NOT NULL,
        worker TEXT NOT NULL, lease_until REAL NOT NULL, not_before REAL NOT NULL,
        cause TEXT, error TEXT NOT NULL, detail TEXT NOT NULL,
        title TEXT NOT NULL, folder TEXT NOT NULL,
        file_count INTEGER NOT NULL, total_bytes INTEGER NOT NULL,
        created_at REAL NOT NULL, started_at REAL NOT NULL, finished_at REAL NOT NULL
    );
    CREATE INDEX jobs_by_status ON jobs (status, guild_id);
    CREATE INDEX jobs_by_guild ON jobs (guild_id, created_at);
    CREATE TABLE parts (  -- the messages a job is posted as, frozen before the first
        job_id TEXT NOT NULL, number INTEGER NOT NULL,
        files TEXT NOT NULL,  -- a JSON object, name to sha256, in order
        content TEXT NOT NULL,
        state TEXT NOT NULL,  -- waiting, sending, sent, dropped
        channel_id INTEGER NOT NULL DEFAULT 0,
        message_id INTEGER NOT NULL DEFAULT 0,
        sending_at REAL NOT NULL DEFAULT 0,
        PRIMARY KEY (job_id, number)
    );
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)


class Database:
    """The bot's SQLite file. One process owns it; every call runs in its thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection: Any = None  # an aiosqlite.Connection while it is open
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Open, check and migrate.

        Raises:
            StartError: locked by another bot, newer than this one, damaged.
        """
        try:
            self.connection = await aiosqlite.connect(
                self.path, timeout=60, isolation_level=None
            )
            self.connection.row_factory = sqlite3.Row
            # FULL: what was acknowledged survives a power cut, too.
            await self.connection.execute("PRAGMA journal_mode=WAL")
            await self.connection.execute("PRAGMA synchronous=FULL")
            check = await self.one("PRAGMA quick_check(1)")
            if check is None or check[0] != "ok":
                raise sqlite3.DatabaseError(check[0] if check else "no answer")
            row = await self.one("PRAGMA user_version")
            version = int(row[0]) if row else 0
            if version > len(MIGRATIONS):
                raise StartError(
                    f"{self.path} comes from a newer Boss-Bot (version {version}, this "
                    f"one knows {len(MIGRATIONS)}). Update the bot: git pull."
                )
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                await self.connection.executescript(
                    f"BEGIN IMMEDIATE; {script}; PRAGMA user_version={number}; COMMIT;"
                )
        except sqlite3.OperationalError as error:
            await self.close()
            raise StartError(
                f"{self.path}: {error}. The bot must be able to write this file, and "
                "the disk must have room."
            ) from error
        except sqlite3.DatabaseError as error:
            await self.close()
            aside = self.path.with_suffix(f".damaged-{int(now())}")
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
            raise StartError(
                f"{self.path} is damaged ({error}) and was kept as {aside.name}. "
                "Put a backup in its place, or start again with an empty queue."
            ) from error
        except BaseException:
            await self.close()  # its thread would keep the process alive
            raise

    async def close(self) -> None:
        """Close; harmless when it is not open."""
        if self.connection:
            await self.connection.close()
            self.connection = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """All or nothing, one at a time."""
        async with self._turn:
            try:
                await self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                await self.connection.commit()
            except BaseException:  # a cancelled task, too, leaves nothing open
                await asyncio.shield(self.connection.rollback())
                raise

    async def one(self, sql: str, *values: Any, **named: Any) -> sqlite3.Row | None:
        """The first row, or None; commits at once."""
        rows = await self.all(sql, *values, **named)
        return rows[0] if rows else None

    async def all(self, sql: str, *values: Any, **named: Any) -> list[sqlite3.Row]:
        """Every row; a statement that changes something is committed at once."""
        async with self._turn:
            return list(await self.connection.execute_fetchall(sql, values or named))

    async def fact(self, key: str, value: str | None = None) -> str:
        """A stored fact, "" when there is none; ``value`` replaces it."""
        if value is not None:
            await self.all("INSERT OR REPLACE INTO facts VALUES (?, ?)", key, value)
        row = await self.one("SELECT value FROM facts WHERE key = ?", key)
        return row["value"] if row else ""


# ── Storage ────────────────────────────────────────────────────────────────────────

# What may be posted: media whose content says so, whatever its name, and plain text.
MEDIA_SUFFIXES = {
    "image": "jpg jpeg png gif webp avif heic heif bmp tif tiff",
    "video": "mp4 m4v mov webm mkv avi flv 3gp mpg mpeg wmv ts",
    "audio": "mp3 m4a aac ogg oga opus flac wav weba aif aiff amr",
    "text": "txt srt vtt lrc",
}


def public_url(job: Job) -> str:
    """A job's link for logs and files: what follows "?" may hold secrets, except on a
    known platform, which has dropped all but what names the post."""
    return job.url if job.platform else job.url.partition("?")[0]


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
    """Text from outside without control, bidirectional and zero-width characters, its
    white space folded."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)  # ANSI colours
    text = "".join(
        char
        for char in re.sub(r"\s", " ", text)
        if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return " ".join(text.split()) if fold else text


def escape(text: str, limit: int = 200) -> str:
    """Text from outside, safe to show in Discord: one line, cut to ``limit``
    characters, with no working mention, link or mark-up."""
    text = one_line(text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    text = re.sub(r"([\\*_~`|>\[\]()#<@])", r"\\\1", text)
    text = re.sub(r"(?i)(discord(?:app)?)\.(gg|com/invite)", r"\1\\.\2", text)
    return text.replace("//", "\\/\\/")


def safe_name(title: str, limit: int = 60) -> str:
    """A piece of a file name: ASCII letters, digits and hyphens, never empty."""
    plain = unicodedata.normalize("NFKD", title[:1000]).encode("ascii", "ignore")
    name = re.sub(r"[^A-Za-z0-9]+", "-", plain.decode()).strip("-")
    return name[:limit].strip("-") or "media"


def timestamp(seconds: float) -> str:
    """ "20261123-204512", in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d-%H%M%S")


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


def inspect_file(path: Path, folder: Path) -> MediaFile:
    """A checked file of a job; blocks for the time of reading it.

    Raises:
        JobFailed: not a regular file inside the folder, empty, or no media.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(
        folder.resolve()
    ):
        raise JobFailed(Cause.INTERNAL, f"{path} is no regular file of its job")
    with path.open("rb") as file:
        head = file.read(8192)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    suffix = path.suffix.lower().lstrip(".")
    kind = filetype.guess(head)
    mime = kind.mime if kind else ""
    # MPEG-TS, unknown to filetype: packets of 188 bytes.
    if not mime and not _is_text(head) and head[:377:188] == b"GGG":
        mime = "video/mp2t"
    if not mime and suffix in MEDIA_SUFFIXES["text"].split() and _is_text(head):
        mime = "text/plain"
    if not status.st_size or mime.split("/")[0] not in MEDIA_SUFFIXES:
        raise JobFailed(Cause.NO_MEDIA, f"{path.name} holds {mime or 'no media'}")
    return MediaFile(path, status.st_size, sha256, mime)


def _is_text(head: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        text = head.decode("utf-8", "strict" if len(head) < 8192 else "ignore")
        return not re.search(r"[\x00-\x08\x0e-\x1f]|^\s*(<|#EXT|ffconcat)", text)
    return False


def suffix_of(file: MediaFile) -> str:
    """The ending a file is posted with: its own where it suits what it holds."""
    own = file.path.suffix.lower().lstrip(".")
    if own in MEDIA_SUFFIXES[file.mime.split("/")[0]].split():
        return own
    kind = filetype.get_type(mime=file.mime)
    return str(kind.extension) if kind else "txt" if "text" in file.mime else "ts"


class Storage:
    """The folders under ``data_dir``. Its methods block: call them in a thread."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            StartError: when they cannot be written.
        """
        try:
            for name in ("temp", "downloads", "guilds", "logs", "cache", ".locks"):
                (self.data / name).mkdir(parents=True, exist_ok=True)
            write_atomically(self.data / ".locks" / "writable", b"")
        except OSError as error:
            raise StartError(
                f"{self.data}: {error.strerror}. The bot must be able to write to its "
                "data folder: change its owner (chown), or set data_dir."
            ) from error

    def lock(self) -> Any:
        """Own the data folder for this process; keep what is returned open.

        Raises:
            StartError: when another process does.
        """
        import fcntl

        file = (self.data / ".locks" / "bossbot.lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise StartError(
                f"Another Boss-Bot (process {file.read().strip() or '?'}) uses "
                f"{self.data}. Stop it first, or set another data_dir."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        return file

    def attempt_folder(self, job: Job) -> Path:
        """The folder of one attempt: no older attempt can write into it."""
        folder = self.data / "temp" / job.id / str(job.fence)
        self.forget_attempt(job)
        for name in ("files", "home"):
            (folder / name).mkdir(parents=True)
        return folder

    def forget_attempt(self, job: Job) -> None:
        """Remove the folders of this attempt and of older ones, which are dead."""
        folder = self.data / "temp" / job.id
        for attempt in folder.glob("[0-9]*"):
            if int(attempt.name) <= job.fence:
                shutil.rmtree(attempt, ignore_errors=True)
        with contextlib.suppress(OSError):  # a newer attempt is there
            folder.rmdir()

    def keep(
        self, job: Job, files: Sequence[MediaFile], facts: dict[str, Any]
    ) -> list[MediaFile]:
        """Move a job's files to where they stay, under their final names, with
        ``metadata.json`` beside them; sets the job's folder."""
        day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
        folder = self.data / "downloads" / str(job.guild_id) / day / job.id
        shutil.rmtree(folder, ignore_errors=True)
        kept = self.place(job, files, folder / "content")
        metadata = {
            "job": job.id,
            "source_url": public_url(job),
            "platform": job.platform,
            "engine": job.engine,
            **{key: facts.get(key) for key in ("title", "uploader", "date", "text")},
            "files": [
                {"name": f.name, "sha256": f.sha256, "size": f.size, "mime": f.mime}
                for f in kept
            ],
            "requester": job.user_id,
            "guild": job.guild_id,
            "channel": job.channel_id,
            "requested_at": datetime.fromtimestamp(job.created_at, UTC).isoformat(),
            "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(
            folder / "metadata.json",
            json.dumps(metadata, indent=2, ensure_ascii=False).encode(
                "utf-8", "replace"
            ),
        )
        job.folder = str(folder.relative_to(self.data))
        return kept

    def place(
        self, job: Job, files: Sequence[MediaFile], folder: Path
    ) -> list[MediaFile]:
        """Move files into a folder as ``{timestamp}_{title}_{job}_{number}.{suffix}``."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{timestamp(job.created_at)}_{safe_name(job.title)}_{job.id}"
        kept = []
        for number, file in enumerate(files, 1):
            path = folder / f"{stem}_{number:02}.{suffix_of(file)}"
            shutil.move(file.path, path)
            kept.append(dataclasses.replace(file, path=path))
        return kept

    def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """Files that ``keep`` left, by name.

        Raises:
            FileNotFoundError: one is gone.
        """
        folder = self.data / job.folder / "content"
        return [inspect_file(folder / name, folder) for name in names]

    def guild_settings(self, guild_id: int, stem: str, model: type[BaseModel]) -> Any:
        """A guild's settings of one plugin; what is wrong in its file is ignored."""
        try:
            table = _read_toml(self.data / "guilds" / f"{guild_id}.toml")[2]
            return model(**table.get(stem, {}))
        except (StartError, TypeError, ValidationError) as error:
            logger.warning("guild {} [{}]: {}", guild_id, stem, error)
            return model()

    def set_guild_setting(
        self, guild_id: int, stem: str, model: type[BaseModel], key: str, value: Any
    ) -> Any:
        """Store one value of a guild, whole and atomically; returns the settings.

        Raises:
            Refused: the value or the key is wrong, in words for the member.
        """
        path = self.data / "guilds" / f"{guild_id}.toml"
        if key not in model.model_fields:
            known = list(model.model_fields)
            raise Refused(f"No setting {key}{_did_you_mean(key, known)}")
        try:
            tables = _read_toml(path)[2]
            settings = model(**{**tables.get(stem, {}), key: value})
        except ValidationError as error:
            raise Refused("; ".join(_explain(error))) from None
        except (StartError, TypeError) as error:
            logger.error("guild {}: {}", guild_id, error)
            raise Refused("This server's settings file is broken.") from None
        tables[stem] = settings.model_dump(
            mode="json", exclude_defaults=True, exclude_none=True
        )
        write_atomically(path, tomli_w.dumps(tables).encode())
        return settings


# ── Child processes ────────────────────────────────────────────────────────────────
#
# The bot starts one fork server, a Python that has the engines' libraries warm. For
# each attempt the server forks a child, which gets a socket for JSON lines and a pipe
# for what it prints. When the bot goes away, both ends close and everything dies.

MAX_LINE_BYTES = 256 * 1024
MAX_LOG_BYTES = 256 * 1024  # of what a child prints; the rest is dropped
JS_MEMORY_BYTES = 2**30  # V8 needs it
GROUP_MEMORY_BYTES = 2**30  # on top of memory_limit: ffmpeg, a JavaScript runtime
STALL_S, STALL_BYTES = 60.0, 32 * 1024  # a download must gain so much in that time
PROGRAMS = ("ffmpeg", "ffprobe", "deno", "node", "bun", "qjs")
KEPT_ENVIRONMENT = re.compile(
    r"(PATH|LANG|LC_\w+|TZ|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|SYSTEMROOT"
    r"|(HTTPS?|ALL|NO)_PROXY|PYTHONDONTWRITEBYTECODE)$",
    re.IGNORECASE,
)
# What makes ffmpeg open anything but a local file: "http:x", "concat:", "subfile,,:".
REMOTE_ARGUMENT = re.compile(r"^(?!file:)[A-Za-z][\w.+,-]*:|(?<!file)://")
CAN_FORK = sys.platform == "linux"  # elsewhere a fork after threads is not safe


def find_programs() -> dict[str, str]:
    """The helper programs on this machine: name and absolute path."""
    folders = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    found = {name: shutil.which(name, path=folders) for name in PROGRAMS}
    return {name: os.path.realpath(path) for name, path in found.items() if path}


# In the server and in the children:


def serve() -> None:
    """Be the fork server: standard input is a socket whose first packet names the
    engine plugins; each later one asks for a child and brings its socket and pipe."""
    control = socket.socket(fileno=os.dup(0))
    setup = json.loads(control.recv(65536))
    pids: dict[int, int] = {}

    def reap(*_: Any) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                number = pids.pop(ended[0], 0)
                status = os.waitstatus_to_exitcode(ended[1])
                control.send(json.dumps({"child": number, "exit": status}).encode())

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the bot's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for path in setup["engines"]:
        try:
            for engine in load_engines(Path(path)).values():
                engine.warm()
        except (Exception, SystemExit):  # the boundary of a plugin; a child will tell
            traceback.print_exc()
    # A child imports its plugin from disk, so that a reload is seen.
    for name in [name for name in sys.modules if name.startswith(PLUGIN_PACKAGE)]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # the children share these pages
    while True:
        packet, descriptors, *_ = socket.recv_fds(control, 65536, 2)
        if not packet:
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            try:
                child_main(*descriptors)
            finally:
                os._exit(1)  # whatever happens, a child never becomes a server
        pids[pid] = json.loads(packet)["child"]
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def load_engines(path: Path) -> dict[str, Engine]:
    """The engines of a plugin file, by name; raises what the file raises."""
    module = import_plugin(path)
    return {engine.name: engine for engine in module.register_engines()}


def child_main(talk: int, log: int) -> NoReturn:
    """Be the child of one attempt: read a request, do it, say how it went."""
    if os.getpgrp() != os.getpid():
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if log > 2:
        os.close(log)
    connection = socket.socket(fileno=talk)
    lock = threading.Lock()

    def tell(**message: Any) -> None:
        # Engines pass halves of surrogate pairs on, which no file or database takes.
        line = (
            json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        )
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a message of {len(line)} bytes")
        with lock:
            connection.sendall(line)

    tell(event="started", pid=os.getpid())  # from here on we are a group to kill
    line = connection.makefile("rb").readline()
    if not line:
        os._exit(0)
    request = json.loads(line)

    def watch() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    try:
        random.seed()
        os.environ |= {"HOME": request["home"], "TMPDIR": request["home"]}
        os.chdir(request["home"])
        memory = (request["memory_bytes"], JS_MEMORY_BYTES + request["memory_bytes"])
        resource.setrlimit(resource.RLIMIT_DATA, memory)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if size := request.get("max_file_bytes"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        tell(event="done", answer=TASKS[request["task"]](request, tell))
    except JobFailed as error:
        tell(event="failed", **_failure_message(error))
    # The boundary of an attempt: whatever it is, the parent must hear of it.
    except BaseException as error:
        traceback.print_exc()
        cause = Cause.INTERNAL
        if isinstance(error, MemoryError):
            cause = Cause.TOO_LARGE
        elif isinstance(error, OSError):
            errors = {errno.ENOSPC: Cause.DISK_FULL, errno.EFBIG: Cause.TOO_LARGE}
            cause = errors.get(error.errno or 0, cause)
        detail = f"{type(error).__name__}: {error}"
        tell(event="failed", **_failure_message(JobFailed(cause, detail)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _failure_message(error: JobFailed) -> dict[str, Any]:
    """The arguments that make the error again, to be told as JSON."""
    words = [error.cause, error.detail[:4000], str(error)[:500], error.retry_after_s]
    return {"error": words}


def _failure(message: dict[str, Any]) -> JobFailed:
    cause, *rest = message["error"]
    return JobFailed(Cause(cause), *rest)


class ChildReport:
    """The child's ``Report``: what an engine tells goes to the bot as JSON lines."""

    def __init__(self, tell: Callable[..., None], request: Request) -> None:
        self._tell = tell
        self._request = request
        self._last_s = 0.0
        self._bytes = 0

    def info(self, **facts: Any) -> None:
        """See ``Report``; texts are cut to 8,000 characters."""
        self._tell(event="info", facts={k: _cut(v) for k, v in facts.items()})

    def progress(self, progress: Progress) -> None:
        """See ``Report``; at most ten times a second. Stops a job that is too large."""
        limit = self._request.max_job_bytes
        if limit and self._bytes + progress.done_bytes > limit:
            raise JobFailed(Cause.TOO_LARGE, f"over max_job_size ({limit} bytes)")
        if time.monotonic() - self._last_s > 0.1:
            self._last_s = time.monotonic()
            facts = dataclasses.asdict(progress) | {"name": _cut(progress.name, 300)}
            self._tell(event="progress", progress=facts)

    def file(self, path: Path) -> None:
        """See ``Report``."""
        self._bytes += path.stat().st_size
        self._tell(event="file", path=str(path))

    def item_failed(self, failure: JobFailed) -> None:
        """See ``Report``."""
        self._tell(event="item_failed", **_failure_message(failure))


def _cut(value: Any, limit: int = 8000) -> Any:
    return value[:limit] if isinstance(value, str) else value


def _task_download(request: dict[str, Any], tell: Callable[..., None]) -> None:
    """Fetch a link with an engine."""
    job = Request(**request["request"])
    job.folder, job.cache_dir = Path(job.folder), Path(job.cache_dir)
    job.cookies_file = Path(job.cookies_file) if job.cookies_file else None
    job.failures = [(pattern, Cause(cause)) for pattern, cause in job.failures]
    if request["warm"]:  # a fresh interpreter; behind the fence it may not
        load_engines(Path(request["plugin"]))[request["engine"]].warm()
    raise_fence(tell, job, request["allow_private"])
    engine = load_engines(Path(request["plugin"]))[request["engine"]]
    try:
        engine.download(job, ChildReport(tell, job))
    except JobFailed as error:
        if error.cause is Cause.ENGINE_OUTDATED:
            which = f"{engine.name} {engine.version()}"
            if (days := age_days(engine.name, engine.version())) is not None:
                which += f", {days} days old"
            raise JobFailed(
                error.cause, error.detail, f"{error} (It is {which}.)"
            ) from error
        raise


def _load_all(paths: Iterable[str]) -> list[Engine]:
    """The engines of several plugin files, by name; a broken file has none."""
    engines: list[Engine] = []
    for path in paths:
        try:
            engines += load_engines(Path(path)).values()
        except (Exception, SystemExit):  # the boundary of a plugin
            traceback.print_exc()
    return sorted(engines, key=lambda engine: engine.name)


def _task_supports(
    request: dict[str, Any], tell: Callable[..., None]
) -> list[str | None]:
    """For each link the first engine with an extractor of its own for it, else the
    generic one, unless ``own`` is asked for."""
    engines = _load_all(request["plugins"])
    generic = next(
        (e.name for e in engines if e.generic and not request.get("own")), None
    )

    def knows(engine: Engine, url: str) -> bool:
        try:
            return engine.supports(url)
        except Exception:  # the boundary of a plugin
            traceback.print_exc()
            return False

    return [
        next((engine.name for engine in engines if knows(engine, url)), generic)
        for url in request["urls"]
    ]


def _task_versions(request: dict[str, Any], tell: Callable[..., None]) -> Any:
    """The engines' versions."""
    engines = _load_all(request["plugins"])
    return {engine.name: engine.version() for engine in engines}


def _task_run(request: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """Run a program; its output is cut to 16,384 characters."""
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    done = subprocess.run(request["argv"], capture_output=True, cwd=request["cwd"])
    texts = (done.stdout, done.stderr)
    out, err = (text[-65536:].decode(errors="replace")[-16384:] for text in texts)
    return {"exit": done.returncode, "stdout": out, "stderr": err}


TASKS: dict[str, Callable[..., Any]] = {
    "download": _task_download,
    "supports": _task_supports,
    "versions": _task_versions,
    "run": _task_run,
}


def is_public(address: str) -> bool:
    """Whether a literal address is on the internet; one that carries an IPv4 address
    (mapped, compatible, 6to4, Teredo, NAT64) is judged by that."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a name, or an odd spelling that the system would resolve
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        raw = ip.packed
        carried: list[Any] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        siit = b"\0" * 8 + b"\xff\xff\0\0"  # RFC 7915
        if raw[:12] in (b"\0" * 12, siit, bytes.fromhex("0064ff9b") + b"\0" * 8):
            carried.append(ipaddress.IPv4Address(raw[12:]))
        if raw[:6] == bytes.fromhex("0064ff9b0001"):  # RFC 6052, a /48
            carried.append(ipaddress.IPv4Address(raw[6:8] + raw[9:11]))
        if judged := [str(v4) for v4 in carried if v4 is not None]:
            return all(is_public(v4) for v4 in judged)
    site_local = getattr(ip, "is_site_local", False)
    return ip.is_global and not ip.is_multicast and not site_local


def raise_fence(
    tell: Callable[..., None], request: Request, allow_private: bool
) -> None:
    """Let this process reach public addresses and the host's own proxies alone, and
    start the helper programs alone, on local files. It cannot be taken down again."""
    home = os.path.realpath(os.environ["HOME"]) + os.sep
    programs = set(request.programs.values())
    proxies = set()
    names = ("http_proxy", "https_proxy", "all_proxy")
    variables = [value for key, value in os.environ.items() if key.lower() in names]
    for proxy in filter(None, [request.proxy, *variables]):
        parts = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        if parts.hostname:
            with contextlib.suppress(OSError, ValueError):
                port = parts.port or {"https": 443}.get(parts.scheme, 80)
                for found in socket.getaddrinfo(parts.hostname, port):
                    proxies.add(found[4][:2])

    def refuse(what: str, message: str) -> NoReturn:
        # The engine must not try again: the attempt ends here.
        tell(
            event="failed",
            **_failure_message(JobFailed(Cause.INVALID_URL, what, message)),
        )
        os.killpg(0, signal.SIGKILL)
        raise SystemExit

    def check_address(address: Any) -> None:
        private = "That link leads to a private address, which I do not open."
        if not isinstance(address, tuple):
            refuse(f"socket {address!r}", private)
        if address[:2] in proxies or allow_private or is_public(str(address[0])):
            return
        refuse(f"private address {address[0]}", private)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if arguments[1] is not None:
                check_address(arguments[1])
        elif event in ("subprocess.Popen", "os.posix_spawn", "os.exec"):
            program = os.path.realpath(os.fsdecode(arguments[0]))
            argv = [os.fsdecode(argument) for argument in arguments[1]]
            allowed = program in programs or program.startswith(home)
            if not allowed or any(map(REMOTE_ARGUMENT.search, argv)):
                refuse(f"program {argv}", SENTENCES[Cause.INTERNAL])
        elif event in ("os.system", "os.spawn", "pty.spawn"):
            refuse(event, SENTENCES[Cause.INTERNAL])

    if proxies:  # the proxy would dial for us: judge the link's own host, too
        host = urlsplit(request.url).hostname or ""
        with contextlib.suppress(OSError):
            for found in socket.getaddrinfo(host, None):
                check_address(found[4])
    sys.addaudithook(audit)


# In the bot:


class Child:
    """One child process, seen from the bot."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 0  # known once it is a group of its own
        self.busy = False  # a file is on its way
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None

    def kill(self) -> None:
        """End it with everything it started; its socket then closes."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.writer:
            self.writer.close()  # one that is no group yet sees this and goes

    def memory_bytes(self) -> int:
        """What its process group holds in memory; blocks."""
        pages = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                values = path.read_text().rpartition(")")[2].split()
                if int(values[2]) == self.pid:
                    pages += int(values[21])
        return pages * resource.getpagesize()


class Children:
    """Starts the children and the fork server they come from."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.programs = find_programs()
        self.running: dict[int, Child] = {}
        self._count = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def engine_files(self) -> list[str]:
        """The files of the engines' plugins, in the engines' order."""
        names = self.plugins.registered("engines")
        return list(dict.fromkeys(str(self.plugins.engine_file(n)) for n in names))

    def _python(self, call: str, channel: socket.socket, log: int) -> Any:
        """Start a Python that runs a function of this file."""
        environment = {k: v for k, v in os.environ.items() if KEPT_ENVIRONMENT.match(k)}
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import bossbot; {call}"
        return subprocess.Popen(
            [sys.executable, "-P", "-c", code],  # -P: no working directory in sys.path
            stdin=channel.fileno(),
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )

    def start(self) -> None:
        """Start the fork server; it warms up while the bot goes on."""
        if not CAN_FORK:
            return
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = self._log_pipe("fork server")
        self._server = self._python("bossbot.serve()", theirs, log)
        theirs.close()
        os.close(log)
        self._control.send(json.dumps({"engines": self.engine_files()}).encode())
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._hear_server)

    def _hear_server(self) -> None:
        assert self._control and self._server
        try:
            packet = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet:
            message = json.loads(packet)
            child = self.running.get(message["child"])
            if child and not child.exit.done():
                child.exit.set_result(message["exit"])
            return
        logger.error("the fork server ended; the next download starts a new one")
        self._forget_server()

    def _forget_server(self) -> None:
        if self._control and self._server:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()  # at which a living server kills its children, and ends
            self._keep(asyncio.to_thread(self._server.wait))
        self._control = self._server = None

    def _log_pipe(self, name: str) -> int:
        """The writing end of a pipe whose lines go to the log."""
        reading, writing = os.pipe()

        async def copy() -> None:
            reader = asyncio.StreamReader(limit=65536)
            await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
            )
            left = MAX_LOG_BYTES
            while chunk := await reader.read(8192):
                for line in chunk[:left].decode(errors="replace").splitlines():
                    logger.debug("[{}] {}", name, line)
                left = max(left - len(chunk), 0)

        self._keep(copy())
        return writing

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Kill every child and the server."""
        for child in list(self.running.values()):
            child.kill()
        self._forget_server()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=3)

    @contextlib.asynccontextmanager
    async def child(self, name: str, task: str, **request: Any) -> AsyncIterator[Child]:
        """A child at work on a task; it is dead when the block ends."""
        self._count += 1
        child = Child(self._count)
        self.running[child.number] = child
        ours, theirs = socket.socketpair()
        log = self._log_pipe(name)
        try:
            try:
                self._send_for(child, theirs, log)
            except OSError:  # the server has just died
                self._forget_server()
                self._send_for(child, theirs, log)
            finally:
                theirs.close()
                os.close(log)
            child.reader, child.writer = await asyncio.open_unix_connection(
                sock=ours, limit=MAX_LINE_BYTES
            )
            request |= {"task": task, "memory_bytes": int(self.settings.memory_limit)}
            child.writer.write(json.dumps(request, default=str).encode() + b"\n")
            yield child
        finally:
            child.kill()
            del self.running[child.number]

    def _send_for(self, child: Child, theirs: socket.socket, log: int) -> None:
        """Have a process made that takes the other end of the socket and the pipe."""
        if CAN_FORK and not self._server:
            self.start()
        if self._control:
            packet = json.dumps({"child": child.number}).encode()
            socket.send_fds(self._control, [packet], [theirs.fileno(), log])
        else:
            call = "bossbot.child_main(__import__('os').dup(0), 1)"
            self._keep(self._wait_for(self._python(call, theirs, log), child))

    async def _wait_for(self, process: Any, child: Child) -> None:
        status = await asyncio.to_thread(process.wait)
        if not child.exit.done():
            child.exit.set_result(status)

    async def events(self, child: Child) -> AsyncIterator[dict[str, Any]]:
        """What the child tells, up to "done".

        Raises:
            JobFailed: what it said, or how it died.
        """
        while True:
            try:
                line = await child.reader.readline()
            except (ValueError, ConnectionError) as error:
                raise JobFailed(Cause.INTERNAL, f"child: {error}") from error
            if not line:
                break
            try:
                message = json.loads(line)
            except ValueError:
                break
            match message["event"]:
                case "started":
                    child.pid = message["pid"]
                case "failed":
                    raise _failure(message)
                case "done":
                    yield message
                    return
                case _:
                    yield message
        try:
            async with asyncio.timeout(5):
                status = await asyncio.shield(child.exit)
        except TimeoutError:
            status = -signal.SIGKILL
        how = (
            f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"
        )
        raise JobFailed(
            Cause.INTERNAL,
            f"the download process died: {how}",
            f"The download process died ({how}). Try again; if it happens again, tell "
            "the bot's owner.",
        )

    async def ask(self, task: str, **request: Any) -> Any:
        """The answer of a short task."""
        home = self.settings.data_dir / "temp"
        async with (
            asyncio.timeout(60),
            self.child(task, task, home=str(home), **request) as child,
        ):
            async for message in self.events(child):
                if message["event"] == "done":
                    return message["answer"]


# ── Pipeline ───────────────────────────────────────────────────────────────────────

LEASE_S = 60.0
MAX_CRASHES = 3
MAX_RETRY_WAIT_S = 60.0


def find_links(text: str) -> list[str]:
    """The words of a member, in order and once each, without the punctuation and the
    mark-up around them; those that are no links are kept, to be answered."""
    links = []
    for word in text.split():
        before = ""
        while word != before:
            before = word
            word = word.rstrip(".,;:!?")
            for left, right in ("<>", "()", "[]", '""', "``", ("||",) * 2, ("**",) * 2):
                if word.startswith(left) and word.endswith(right):
                    word = word[len(left) : -len(right)]
                elif left != right and word.count(right) > word.count(left):
                    word = word.removesuffix(right)  # "(see https://a/b)"
        links.append(word)
    return list(dict.fromkeys(filter(None, links)))


def check_link(link: str) -> str:
    """A member's link as the engines may get it: http(s), its host in ASCII. What a
    fragment may mean is an engine's matter.

    Raises:
        Refused: with the reason, for the member.
    """
    if len(link) > 2000:
        raise Refused("Invalid URL: it is longer than 2,000 characters.")
    hidden = ("Cc", "Cf", "Cn", "Cs", "Co", "Zs", "Zl", "Zp")
    if "\\" in link or any(unicodedata.category(char) in hidden for char in link):
        raise Refused("Invalid URL: it has a space, a backslash or a hidden character.")
    if not re.match(r"https?://", link, re.IGNORECASE):
        raise Refused("Invalid URL: it must start with http:// or https://.")
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        if ":" in host:  # IPv6
            host = f"[{ipaddress.IPv6Address(host)}]"
        else:
            host = host.encode("idna").decode("ascii").lower().rstrip(".")
        netloc = f"{host}:{parts.port}" if parts.port else host
    except ValueError as error:  # UnicodeError is one
        raise Refused("Invalid URL: its host or port is malformed.") from error
    if "@" in parts.netloc:
        raise Refused("Invalid URL: user names and passwords are not accepted.")
    if not re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", host):
        raise Refused("Invalid URL: it has no host.")
    path = parts.path or "/"
    return urlunsplit(
        parts._replace(scheme=parts.scheme.lower(), netloc=netloc, path=path)
    )


class Route(NamedTuple):
    """Where a link goes."""

    url: str  # normalised
    platform: str  # "" for one that no platform knows
    engine: str  # "" when nothing can fetch it


@dataclass(frozen=True)
class Accepted:
    """How a link was taken in: as a job, or with an answer in its place."""

    job: Job | None
    position: int = 0  # in the queue, from 1; 0 when it started at once
    answer: str = ""


@dataclass
class Download:
    """What an attempt brought."""

    files: list[MediaFile] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # see Report.info
    failures: list[JobFailed] = field(default_factory=list)  # of single items


_pipeline: ContextVar[Pipeline] = ContextVar("pipeline")


async def run(job: Job, argv: Sequence[str]) -> dict[str, Any]:
    """Run a program (ffmpeg) for a job, in a child that dies with the bot and with the
    job; returns its exit, stdout and stderr. For ``process_files`` hooks.

    Raises:
        JobFailed: when it was killed.
    """
    return await _pipeline.get().run_program(job, argv)


class Courier(Protocol):
    """Brings files to where they were asked for; the Discord client is one."""

    async def freeze(self, job: Job, files: list[MediaFile], facts: Download) -> None:
        """Decide and store the messages a job will be posted as."""

    async def post(self, job: Job) -> None:
        """Send what is not sent yet; raises JobFailed when nothing can be."""


class Pipeline:
    """Carries links to their channels: intake, queue, download, processing, posting."""

    def __init__(self, settings: Settings, plugins: Plugins) -> None:
        self.settings = settings
        self.plugins = plugins
        self.storage = Storage(settings.data_dir)
        self.children = Children(settings, plugins)
        self.db = Database(settings.data_dir / "bossbot.db")
        self.queue: Queue
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self.courier: Courier
        self.running: dict[str, asyncio.Task[None]] = {}
        self.stopping = False
        self._lock_file: Any = None
        self._claiming = asyncio.Lock()
        self._announcing: dict[str, asyncio.Task[None]] = {}
        self._dispatcher: asyncio.Task[None] | None = None

    async def start(self, bot: BossBot) -> None:
        """Open the database and take up the jobs, the unfinished ones first.

        Raises:
            StartError: the data folder or the database cannot be used.
        """
        self._lock_file = await asyncio.to_thread(self.storage.lock)
        self.children.start()
        await self.db.open()
        self.queue = await self._required("register_queue", db=self.db)
        self.courier = await self._required("register_courier", bot=bot)
        await self.queue.recover()
        for job in await self.queue.list(statuses=[Status.QUEUED]):
            if job.crashes >= MAX_CRASHES:
                error = JobFailed(
                    Cause.INTERNAL,
                    f"{job.crashes} attempts ended with the bot",
                    "The bot stopped each time it tried this link, so it gave up.",
                )
                await self._end(job, Status.FAILED, error)
        for job in await self.queue.list(statuses=[Status.UPLOADING]):
            self._spawn(job, self._post(job))
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def _required(self, hook: str, **values: Any) -> Any:
        if (answer := await self.plugins.call_first(hook, **values)) is None:
            raise StartError(f"No plugin offers {hook}(): see `bossbot.py plugins`.")
        return answer

    async def stop(self, grace_s: float = 20) -> None:
        """Claim nothing more, give running downloads back to the queue, let uploads
        end within ``grace_s``; what is left is taken up at the next start."""
        self.stopping = True
        if self._dispatcher:
            self._dispatcher.cancel()
        uploads = []
        for job_id, task in list(self.running.items()):
            job = await self.queue.get(job_id)
            if job and job.status is Status.UPLOADING:
                uploads.append(task)
            else:
                task.cancel()
        if uploads:
            await asyncio.wait(uploads, timeout=grace_s)
        for task in uploads:  # the others are giving their jobs back
            task.cancel()
        if self.running:
            await asyncio.wait(list(self.running.values()), timeout=3)
        if self._announcing:
            await asyncio.wait(list(self._announcing.values()), timeout=3)
        await self.children.stop()
        await self.db.close()
        if self._lock_file:
            self._lock_file.close()

    # Intake

    async def route(self, link: str) -> Route:
        """Where a member's link goes.

        Raises:
            Refused: it may not be opened.
        """
        route = (await self.route_all([link]))[0]
        if isinstance(route, Refused):
            raise route
        return route

    async def route_all(self, links: Sequence[str]) -> list[Route | Refused]:
        """``route`` for many at once; a refusal stands in its link's place."""
        routes = [self._by_platform(link) for link in links]
        others = [r.url for r in routes if isinstance(r, Route) and not r.engine]
        engines: dict[str, str | None] = {}
        for start in range(0, len(others), 500):
            some, files = others[start : start + 500], self.children.engine_files()
            answers = await self.children.ask("supports", urls=some, plugins=files)
            engines |= zip(some, answers, strict=True)
        return [
            Route(r.url, r.platform, r.engine or engines[r.url] or "")
            if isinstance(r, Route)
            else r
            for r in routes
        ]

    def _by_platform(self, link: str) -> Route | Refused:
        """The route of a link as far as the platforms know it."""
        name = ""
        try:
            url = check_link(link)
            for name, platform in self.plugins.registered("platforms").items():
                if re.match(platform.pattern, url, re.IGNORECASE):
                    url = platform.normalise(url)
                    routed = (
                        engine
                        for pattern, engine in platform.routes
                        if re.match(pattern, url, re.IGNORECASE)
                    )
                    return Route(url, name, next(routed, platform.engine))
            return Route(url, "", "")
        except Refused as error:
            error.platform = name
            return error

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
        request was taken before.

        Raises:
            Refused: with the reason, for the member.
        """
        route = await self.route(link)
        if not route.engine:
            host = urlsplit(route.url).hostname
            raise Refused(f"Not supported: I know no way to download from {host}.")
        job = Job(
            id=secrets.token_hex(5),
            url=route.url,
            platform=route.platform,
            engine=route.engine,
            guild_id=guild_id,
            channel_id=channel_id,
            user_id=user_id,
            request_key=request_key,
            message_id=message_id,
            priority=priority,
            created_at=now(),
        )
        await self.plugins.call("check_job", job=job)
        if answer := await self.plugins.call_first("answer_job", job=job):
            return Accepted(None, answer=str(answer))
        try:
            if not await self.queue.add(job):
                return None
        except sqlite3.Error as error:
            logger.error("a link could not be queued: {}", error)
            raise Refused(
                "I cannot take links now: my disk is full or busy."
            ) from error
        await self._announce(job, None)
        await self._claim_all()
        return Accepted(job, await self.queue.position(job.id))

    # Dispatch

    async def _dispatch(self) -> None:
        """Claim jobs when there is room, and end those that were cancelled."""
        async for job_id in self.queue.changes():
            with logger.catch(message="dispatch failed"):
                job = await self.queue.get(job_id) if job_id else None
                if job and job.status is Status.CANCELLED:
                    await self._cancelled(job)
                await self._claim_all()

    async def _cancelled(self, job: Job) -> None:
        if task := self.running.get(job.id):
            task.cancel()
        await self._announce(job, None)

    async def _claim_all(self) -> None:
        async with self._claiming:
            while not self.stopping:
                job = await self.queue.claim(self.worker, LEASE_S)
                if not job:
                    return
                self._spawn(job, self._work(job))

    def _spawn(self, job: Job, work: Any) -> None:
        task = asyncio.create_task(work)
        self.running[job.id] = task

        def done(_: Any) -> None:
            if self.running.get(job.id) is task:
                del self.running[job.id]

        task.add_done_callback(done)

    async def _announce(self, job: Job, previous: Status | None) -> None:
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

    async def _set(self, job: Job, status: Status) -> None:
        """Commit a status, then announce it.

        Raises:
            JobFailed: another attempt has the job now.
        """
        previous, job.status = job.status, status
        if not await self.queue.renew(job, LEASE_S):
            raise JobFailed(Cause.CANCELLED, "the lease was lost")
        await self._announce(job, previous)

    async def _end(
        self, job: Job, status: Status, error: JobFailed | None = None
    ) -> None:
        """Commit how a job ended, then announce it."""
        previous, job.status, job.finished_at = job.status, status, now()
        if error:
            job.cause, job.error, job.detail = error.cause, str(error), error.detail
        await asyncio.to_thread(self.storage.forget_attempt, job)
        if await self._insist(self.queue.finish, job):
            await self._announce(job, previous)

    async def _insist(self, write: Callable[[Job], Awaitable[bool]], job: Job) -> bool:
        """Write a job's state even when it takes a while: a full disk, a lock."""
        while True:
            try:
                return await write(job)
            except Exception as error:  # each queue has its own
                if self.stopping:
                    raise
                logger.bind(job=job.id).error("the state cannot be stored: {}", error)
                await asyncio.sleep(5)

    @contextlib.asynccontextmanager
    async def _leased(self, job: Job) -> AsyncIterator[None]:
        """Keep the lease of a claimed job; give the work up when it is lost."""
        work = asyncio.current_task()

        async def keep() -> None:
            while await self._insist(partial(self.queue.renew, lease_s=LEASE_S), job):
                await asyncio.sleep(LEASE_S / 3)
            if work:
                work.cancel()

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()

    async def attach_status(self, job: Job, message_id: int) -> None:
        """Say which message of ours shows the job's progress."""
        await self.queue.patch(job.id, status_message_id=message_id)
        if stored := await self.queue.get(job.id):
            await self._announce(stored, stored.status)

    async def _work(self, job: Job) -> None:
        """One attempt, from the claim to the posting."""
        log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
        await self._announce(job, Status.QUEUED)
        try:
            async with self._leased(job):
                download = await self.fetch(job)
                job.title = one_line(str(download.facts.get("title") or ""))[:300]
                await self._set(job, Status.PROCESSING)
                download.files = await self.process(job, download.files)
                kept = await asyncio.to_thread(
                    self.storage.keep, job, download.files, download.facts
                )
                job.file_count, job.total_bytes = len(kept), sum(f.size for f in kept)
                await self.courier.freeze(job, kept, download)
                await self._set(job, Status.UPLOADING)
        except JobFailed as error:
            await self._failed(job, error)
        except asyncio.CancelledError:  # by a member, or because the bot stops
            if self.stopping:
                await self.queue.release(job)
            await asyncio.to_thread(self.storage.forget_attempt, job)
        # The boundary of a job: the next one must run.
        except Exception as error:
            log.exception("the job failed")
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            cause = Cause.DISK_FULL if full else Cause.INTERNAL
            await self._end(job, Status.FAILED, JobFailed(cause, repr(error)))
        else:
            await self._post(job)

    async def _failed(self, job: Job, error: JobFailed) -> None:
        """Try once more what may pass, or another engine; else end the job."""
        log = logger.bind(job=job.id, guild=job.guild_id, user=job.user_id)
        log.info("failed: {} {} ({})", error.cause, public_url(job), error.detail)
        wait_s = None if self.stopping else await self.second_try_in(job, error)
        if wait_s is None:
            await self._end(job, Status.FAILED, error)
        else:
            await self._insist(partial(self.queue.release, delay_s=wait_s), job)

    async def second_try_in(self, job: Job, error: JobFailed) -> float | None:
        """Seconds until a failed first attempt is worth another one, which may be with
        another engine, then set in the job; None when it is not."""
        if job.attempts > 1:
            return None
        if error.retry_after_s is not None and error.retry_after_s <= MAX_RETRY_WAIT_S:
            return error.retry_after_s + random.uniform(1, 3)
        if error.cause in (Cause.UNSUPPORTED, Cause.NO_MEDIA, Cause.INTERNAL):
            files = self.children.engine_files()
            files.remove(str(self.plugins.engine_file(job.engine)))
            engine = (
                await self.children.ask(
                    "supports", urls=[job.url], plugins=files, own=True
                )
            )[0]
            if engine:
                job.engine = engine
                return 0
        return None

    async def _post(self, job: Job) -> None:
        """Post a job's frozen messages; holds no download slot."""
        try:
            await self.courier.post(job)
        except JobFailed as error:
            await self._end(job, Status.FAILED, error)
        except Exception as error:  # the boundary of a job
            logger.bind(job=job.id).exception("posting failed")
            await self._end(job, Status.FAILED, JobFailed(Cause.INTERNAL, repr(error)))
        else:
            await self._end(job, Status.COMPLETED)

    # One attempt

    async def fetch(
        self, job: Job, on_progress: Callable[[Progress], None] | None = None
    ) -> Download:
        """Download a job's files into its attempt's folder, each checked.

        Raises:
            JobFailed: when there is nothing to post, neither file nor text.
        """
        platform = self.plugins.registered("platforms").get(job.platform, NO_PLATFORM)
        folder = await asyncio.to_thread(self.storage.attempt_folder, job)
        settings = self.settings
        request = Request(
            url=job.url,
            folder=folder / "files",
            prefix=f"{job.id}_{timestamp(now())}_temp",
            platform=job.platform,
            cache_dir=settings.data_dir / "cache" / (job.platform or "other"),
            programs=self.children.programs,
            max_items=settings.max_items,
            max_file_bytes=int(settings.max_download_size),
            max_job_bytes=int(settings.max_job_size),
            target_bytes=int(settings.max_file_size),
            options=platform.options,
            proxy=platform.proxy,
            sleep_request_s=platform.sleep_request_s,
            failures=platform.failures,
            cookies_file=await asyncio.to_thread(
                write_cookies, platform, folder / "home" / "cookies.txt"
            ),
        )
        request.cache_dir.mkdir(parents=True, exist_ok=True)
        download, tell = Download(), on_progress or self._tell_progress(job)
        found: list[Path] = []
        try:
            async with (
                asyncio.timeout(settings.download_timeout_s),
                self.children.child(
                    job.id,
                    "download",
                    request=dataclasses.asdict(request),
                    home=str(folder / "home"),
                    plugin=str(self.plugins.engine_file(job.engine)),
                    engine=job.engine,
                    allow_private=settings.allow_private_addresses,
                    warm=not CAN_FORK,
                    max_file_bytes=request.max_file_bytes,
                ) as child,
                self._watched(child, request),
            ):
                async for message in self.children.events(child):
                    match message["event"]:
                        case "info":
                            download.facts |= message["facts"]
                        case "progress":
                            child.busy = True
                            tell(Progress(**message["progress"]))
                        case "file":
                            found.append(Path(message["path"]))
                            child.busy = False
                        case "item_failed":
                            download.failures.append(_failure(message))
        except TimeoutError:
            raise JobFailed(Cause.TIMED_OUT, "over download_timeout_s") from None
        finally:  # sites rotate cookies on pages of failure, too
            if request.cookies_file:
                await asyncio.to_thread(keep_cookies, platform, request.cookies_file)
        for path in found[: settings.max_items]:
            try:
                file = await asyncio.to_thread(inspect_file, path, request.folder)
                download.files.append(file)
            except (JobFailed, OSError) as error:
                failed = JobFailed(Cause.NO_MEDIA, f"{path.name}: {error}")
                download.failures.append(
                    error if isinstance(error, JobFailed) else failed
                )
        if not download.files and not download.facts.get("text"):
            failures = download.failures or [JobFailed(Cause.NO_MEDIA)]
            raise failures[0]
        return download

    def _tell_progress(self, job: Job) -> Callable[[Progress], None]:
        """What passes a job's progress on to the plugins, leaving out what comes while
        they are still at work on the last one."""
        telling: asyncio.Task[Any] | None = None

        def tell(progress: Progress) -> None:
            nonlocal telling
            if telling is None or telling.done():
                call = self.plugins.call("job_progressed", job=job, progress=progress)
                telling = asyncio.create_task(call)

        return tell

    @contextlib.asynccontextmanager
    async def _watched(self, child: Child, request: Request) -> AsyncIterator[None]:
        """Kill a child that holds too much memory or disk, or stands still; the block
        then ends with that reason."""
        reason: list[JobFailed] = []
        settings = self.settings
        most_memory = settings.memory_limit + GROUP_MEMORY_BYTES

        def measure() -> tuple[int, int]:
            sizes = (p.lstat().st_size for p in request.folder.rglob("*"))
            return sum(sizes), child.memory_bytes()

        async def watch() -> None:
            mark_bytes, mark_s = 0, time.monotonic()
            while True:
                await asyncio.sleep(1)
                with contextlib.suppress(OSError):  # files come and go
                    size, memory = await asyncio.to_thread(measure)
                    gained = size - mark_bytes >= STALL_BYTES
                    if gained or not child.busy:
                        mark_bytes, mark_s = size, time.monotonic()
                    if size > request.max_job_bytes + 2**24 > 2**24:
                        reason.append(JobFailed(Cause.TOO_LARGE, "over max_job_size"))
                    elif memory > most_memory:
                        reason.append(JobFailed(Cause.TOO_LARGE, f"{memory} of memory"))
                    elif time.monotonic() - mark_s > STALL_S:
                        reason.append(JobFailed(Cause.TIMED_OUT, "it stood still"))
                    if reason:
                        child.kill()
                        return

        task = asyncio.create_task(watch())
        try:
            yield
        except JobFailed as error:
            raise (reason or [error])[0] from error
        finally:
            task.cancel()

    async def process(self, job: Job, files: list[MediaFile]) -> list[MediaFile]:
        """Let the ``process_files`` hooks change a job's files."""
        _pipeline.set(self)
        processed = await self.plugins.fold(
            "process_files", "files", job=job, files=files
        )
        return list(processed)

    async def run_program(self, job: Job, argv: Sequence[str]) -> dict[str, Any]:
        """See ``run``."""
        home = self.settings.data_dir / "temp" / job.id / str(job.fence) / "home"
        async with self.children.child(
            job.id,
            "run",
            argv=list(argv),
            home=str(home),
            cwd=str(home),
            max_file_bytes=int(self.settings.max_job_size),
        ) as child:
            async for message in self.children.events(child):
                answer: dict[str, Any] = message["answer"]
        return answer


COOKIES_HEADER = "# Netscape HTTP Cookie File"


def write_cookies(platform: Platform, path: Path) -> Path | None:
    """An attempt's own cookies.txt, from the platform's settings; None without any.
    What the host's file held is left beside it, for ``keep_cookies``."""
    lines = [COOKIES_HEADER]
    if platform.cookies_file:
        try:
            data = platform.cookies_file.read_bytes()
            lines += data.decode().splitlines()
            write_atomically(path.with_suffix(".host"), data)
        except (OSError, ValueError) as error:
            logger.warning("{}: cookies_file: {}", platform.name, error)
    for name, value in platform.cookies.items():
        if value and platform.cookies_domain:
            fields = (platform.cookies_domain, "TRUE", "/", "TRUE", "0", name)
            lines.append("\t".join([*fields, value.get_secret_value()]))
    if len(lines) == 1:
        return None
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def keep_cookies(platform: Platform, used: Path) -> None:
    """Write rotated cookies back to the host's file, unless the host has changed it in
    the meantime; the named ones are not its business."""
    with contextlib.suppress(OSError, ValueError):
        before = used.with_suffix(".host").read_bytes()
        named = {name for name, value in platform.cookies.items() if value}
        rows = _cookie_rows(used.read_text("utf-8"))
        rows = {key: row for key, row in rows.items() if key[2] not in named}
        changed = rows and rows != _cookie_rows(before.decode())
        file = platform.cookies_file
        if changed and file and file.read_bytes() == before:
            lines = [COOKIES_HEADER, *("\t".join(row) for row in rows.values()), ""]
            write_atomically(file, "\n".join(lines).encode())


def _cookie_rows(text: str) -> dict[tuple[str, str, str], list[str]]:
    """The cookies of a cookies.txt by domain, path and name; "#HttpOnly_" begins no
    comment."""
    lines = [line for line in text.splitlines() if re.match(r"#HttpOnly_|[^#]", line)]
    rows = [row for line in lines if len(row := line.split("\t")) == 7]
    return {(row[0], row[2], row[5]): row for row in rows}


# ── Discord client ─────────────────────────────────────────────────────────────────

INTENTS_REMEDY = (
    "Discord refuses the message content intent, which $ commands need. Switch on "
    "'Message Content Intent' at https://discord.com/developers/applications under "
    "your application > Bot, or set BOSS_BOT_MESSAGE_CONTENT=false in .env to go on "
    "with slash commands alone."
)
TOKEN_REMEDY = (
    "Discord refuses the token. Make a new one at "
    "https://discord.com/developers/applications under your application > Bot > "
    "Reset Token, and set BOSS_BOT_DISCORD_TOKEN in .env."
)


class BossBot(_Bot):
    """The Discord client; ``make_bot`` mixes it over ``Bot`` or ``AutoShardedBot``."""

    def __init__(self, pipeline: Pipeline, **options: Any) -> None:
        settings = pipeline.settings
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True)
        intents.message_content = settings.message_content
        super().__init__(
            **{
                "command_prefix": commands.when_mentioned_or(settings.command_prefix),
                "intents": intents,
                "allowed_mentions": discord.AllowedMentions.none(),
                "chunk_guilds_at_startup": False,
                "max_messages": None,
                "guild_ready_timeout": 0.5,
                "max_ratelimit_timeout": 60,  # else an upload's time runs out in it
                **options,
            }
        )
        self.pipeline = pipeline
        self._closing = False
        self._greeting: asyncio.Task[None] | None = None

    async def setup_hook(self) -> None:
        """Start the pipeline, install the plugins' commands, sync what changed."""
        await self.pipeline.start(self)
        plugins = self.pipeline.plugins
        for plugin, things in plugins.call_with_owner("register_commands", bot=self):
            await self._install(plugin, things)
        self.tree.error(self._on_app_command_error)
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        digest = hashlib.sha256(
            json.dumps([self.application_id, payload], sort_keys=True).encode()
        ).hexdigest()
        if await self.pipeline.db.fact("commands") != digest:
            await self.tree.sync()
            await self.pipeline.db.fact("commands", digest)
        self._greeting = asyncio.create_task(self._greet())

    async def _install(self, plugin: Plugin, things: Sequence[Any]) -> None:
        """Add a plugin's commands; all of them, or none and the plugin is off."""
        try:
            async with contextlib.AsyncExitStack() as undo:
                for thing in things:
                    if isinstance(thing, commands.Cog):
                        await self.add_cog(thing)
                        undo.push_async_callback(self.remove_cog, thing.qualified_name)
                    elif isinstance(thing, commands.Command):
                        self.add_command(thing)
                        undo.callback(self.remove_command, thing.name)
                    elif isinstance(thing, type):
                        self.add_dynamic_items(thing)
                        undo.callback(self.remove_dynamic_items, thing)
                    else:
                        self.tree.add_command(thing)
                        kind = getattr(thing, "type", discord.AppCommandType.chat_input)
                        undo.callback(self.tree.remove_command, thing.name, type=kind)
                undo.pop_all()
        except Exception as error:  # the boundary of a plugin
            logger.error("{} is off: {}", plugin.stem, error)
            self.pipeline.plugins.switch_off(plugin.stem, str(error))

    async def _greet(self) -> None:
        await self.wait_until_ready()
        logger.info("connected as {} to {} servers", self.user, len(self.guilds))
        await self.pipeline.plugins.call("bot_started", bot=self)

    async def close(self) -> None:
        """Stop cleanly: see ``Pipeline.stop``."""
        if self._closing:
            return
        self._closing = True
        if self._greeting:
            self._greeting.cancel()
        await self.pipeline.plugins.call("bot_stopping", bot=self)
        await self.pipeline.stop()
        await super().close()

    async def on_command_error(
        self, context: commands.Context[Any], error: commands.CommandError, /
    ) -> None:
        """Answer a wrong use; log what is our own mistake."""
        if isinstance(error, commands.CommandNotFound):
            return
        cause = getattr(error, "original", error)
        if isinstance(cause, app_commands.CommandInvokeError):
            cause = cause.original
        text = SENTENCES[Cause.INTERNAL]
        if isinstance(cause, (commands.CommandError, BossbotError)):
            text = escape(str(cause), 1000)
        else:
            logger.opt(exception=cause).error("a command failed")
        with contextlib.suppress(discord.DiscordException, OSError):
            await context.send(text)

    async def _on_app_command_error(
        self, interaction: discord.Interaction, error: app_commands.AppCommandError
    ) -> None:
        context = await commands.Context.from_interaction(cast(Any, interaction))
        await self.on_command_error(context, cast(Any, error))

    def missing_permissions(self, channel: Any) -> list[str]:
        """What the bot lacks to post files in a channel, in Discord's words."""
        guild = getattr(channel, "guild", None)
        if guild is None or guild.me is None:
            return []  # a direct message
        permissions = channel.permissions_for(guild.me)
        thread = isinstance(channel, discord.Thread)
        needed = {
            "View Channel": permissions.view_channel,
            "Send Messages in Threads": permissions.send_messages_in_threads
            or not thread,
            "Send Messages": permissions.send_messages or thread,
            "Attach Files": permissions.attach_files,
            "Read Message History": permissions.read_message_history,
        }
        return [name for name, granted in needed.items() if not granted]


def make_bot(pipeline: Pipeline, **options: Any) -> BossBot:
    """A client that is not connected yet; options go to ``commands.Bot``."""
    # Not at the top: the fork server and the command line do without its 20 MB.
    global aiohttp, app_commands, commands, discord
    import aiohttp
    import discord
    from discord import app_commands
    from discord.ext import commands

    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    base = commands.AutoShardedBot if pipeline.settings.shards else commands.Bot
    mixed = type("BossBot", (BossBot, base), {})
    return cast(BossBot, mixed(pipeline, **options))


# ── Command line ───────────────────────────────────────────────────────────────────

_secrets: set[str] = set()  # what no log line may hold
SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|session|cookie(?!s_file)|auth|api_?key"
)


def setup_logging(
    settings: Settings, *, debug: bool = False, stdout_is_free: bool = True
) -> None:
    """Log to the console (errors to stderr; all of it where a command's answer goes to
    stdout) and to a file a day under data/logs."""
    _secrets.update(_secret_values(settings))

    def clean(record: Any) -> None:
        """Redact secrets, keep a message on one line, and render the traceback, with
        variables only when debugging."""
        trace = ""
        if error := record["exception"]:
            trace = "\n" + "".join(
                traceback.TracebackException(*error, capture_locals=debug).format()
            )
            record["exception"] = None
        lines = [f"  {one_line(line, fold=False)}" for line in trace.splitlines()[1:]]
        record["extra"]["trace"] = redact("\n".join(["", *lines]).rstrip())
        record["message"] = one_line(redact(record["message"]))
        hidden = ("trace", "bound")
        bound = {k: v for k, v in record["extra"].items() if k not in hidden and v}
        words = (f"{key}={value}" for key, value in bound.items())
        record["extra"]["bound"] = one_line(redact(" ".join(words)))

    style = (
        "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {message} {extra[bound]}{extra[trace]}"
    )
    level = "DEBUG" if debug else settings.log_level
    common: dict[str, Any] = {"format": style, "diagnose": False, "backtrace": False}
    logger.remove()
    logger.configure(patcher=clean)
    logger.add(
        sys.stdout if stdout_is_free else sys.stderr,
        level=level if stdout_is_free or debug else "WARNING",
        filter=lambda record: record["level"].no < logging.ERROR,
        **common,
    )
    logger.add(sys.stderr, level="ERROR", **common)
    logger.add(
        settings.data_dir / "logs" / "boss-bot_{time:YYYY-MM-DD}.log",
        level="DEBUG",
        rotation="00:00",
        retention=f"{settings.log_retention_days} days",
        catch=True,  # a full disk must not stop the bot
        opener=lambda path, flags: os.open(path, flags, 0o600),
        **common,
    )
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.NOTSET, force=True)
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # every statement, else
    logging.getLogger("asyncio").setLevel(logging.INFO)


class _ToLoguru(logging.Handler):
    """Passes what libraries log on to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = logging.getLevelName(record.levelno)
        known = level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        logger.opt(exception=record.exc_info).log(
            level if known else record.levelno,
            "{}: {}",
            record.name,
            record.getMessage(),
        )


def _secret_values(thing: Any) -> Iterable[str]:
    """Every secret in the settings, to be kept out of the log."""
    if isinstance(thing, SecretStr):
        yield thing.get_secret_value()
    elif isinstance(thing, BaseModel):
        yield from _secret_values(dict(thing))
    elif isinstance(thing, (list, tuple)):
        for value in thing:
            yield from _secret_values(value)
    elif isinstance(thing, dict):  # a plugin's raw table does not say what is secret
        for key, value in thing.items():
            if isinstance(value, str) and SECRET_NAME.search(str(key)):
                yield value
            yield from _secret_values(value)


def redact(text: str) -> str:
    """Text without the known secrets, and without Discord's interaction tokens."""
    for secret in _secrets:
        if len(secret) > 3:
            text = text.replace(secret, "[secret]")
    text = without_queries(text)
    text = re.sub(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+@", r"\1[secret]@", text)
    text = re.sub(r"((?:webhooks|interactions)/\d+/)[\w\-.]{20,}", r"\1[secret]", text)
    return re.sub(r"('token': ')[^']+", r"\1[secret]", text)


async def run_bot(settings: Settings, plugins: Plugins) -> int:
    """Connect and stay until stopped; returns the exit code.

    Raises:
        StartError: Discord or this machine does not let the bot go on.
    """
    loop = asyncio.get_running_loop()
    bot = make_bot(Pipeline(settings, plugins))
    closing: list[asyncio.Task[None]] = []

    def stop() -> None:
        if closing:  # asked twice: at once
            os._exit(1)
        logger.info("stopping; once more to stop at once")
        closing.append(asyncio.create_task(bot.close()))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    token = settings.discord_token
    assert token, "main() asks for it"
    try:
        async with bot:
            await bot.start(token.get_secret_value())
    except discord.LoginFailure as error:
        raise StartError(TOKEN_REMEDY) from error
    except discord.PrivilegedIntentsRequired as error:
        raise StartError(INTENTS_REMEDY) from error
    except (
        discord.ConnectionClosed,
        OSError,
        aiohttp.ClientError,
        RuntimeError,
    ) as error:
        if closing:  # what close() cut off
            return 0
        if isinstance(error, RuntimeError):
            raise
        code = getattr(error, "code", 0)
        other = f"Discord cannot be reached ({error}). Check the network."
        raise StartError(
            {4004: TOKEN_REMEDY, 4014: INTENTS_REMEDY}.get(code, other)
        ) from error
    finally:
        if closing:
            await asyncio.wait(closing)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bot or a command; returns the exit code: 0, 1 for a failed command, 2
    where the bot cannot go on."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path, metavar="PATH", help="a settings file")
    early.add_argument("--debug", action="store_true", help="log all, with variables")
    known, rest = early.parse_known_args(argv)  # the plugins' commands come later
    parser = argparse.ArgumentParser(
        "bossbot.py", description="A Discord media bot.", parents=[early]
    )
    os.umask(0o077)  # what the bot writes is its owner's
    try:
        settings = load_settings(known.config)
        Storage(settings.data_dir).prepare()
        answers = any(not word.startswith("-") for word in rest)
        setup_logging(settings, debug=known.debug, stdout_is_free=not answers)
        plugins = Plugins(settings)
        plugins.load()
        for plugin in plugins.all.values():
            _secrets.update(_secret_values(plugin.config))
        subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
        subcommands: dict[str, Subcommand] = plugins.registered("subcommands")
        for command in subcommands.values():
            try:
                command.add_arguments(
                    subparsers.add_parser(command.name, help=command.help)
                )
            except (Exception, SystemExit) as error:  # the boundary of a plugin
                logger.error("the command {} is broken: {!r}", command.name, error)
        arguments = parser.parse_args(rest)
        chosen = subcommands.get(arguments.command)
        if chosen is None and settings.discord_token is None:
            chosen = subcommands.get("setup")
            if chosen is None or not sys.stdin.isatty():
                raise StartError(
                    "No token. Make an application at "
                    "https://discord.com/developers/applications, copy its bot's token "
                    f"and write BOSS_BOT_DISCORD_TOKEN=... into {HERE / '.env'}."
                )
            arguments = parser.parse_args(["setup"])
            if code := asyncio.run(chosen.run(Pipeline(settings, plugins), arguments)):
                return code
            return main(argv)
        if chosen:
            return asyncio.run(chosen.run(Pipeline(settings, plugins), arguments))
        return asyncio.run(run_bot(settings, plugins))
    except StartError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    import bossbot  # plugins and core share one module, not this __main__

    sys.exit(bossbot.main())
