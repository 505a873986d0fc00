#!/usr/bin/env python3
"""Boss-Bot: paste a link in Discord, and the media behind it is posted there.

The core is two files, each written to be read from top to bottom.
``bossbot_contracts.py`` has the declarations that everything shares: the data, the
contributions of plugins, the parts that a link passes through, the hooks. This file
does the work. It reads the settings, and finds, loads and calls the plugins; then the
app takes links in and announces their changes; the log and the command line are at the
end. Everything else is a plugin in ``plugins/``, which imports the names of both files
from here.

    python bossbot.py                 run the bot
    python bossbot.py get URL...      download without Discord
    python bossbot.py --help          list the other commands
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # plugins and core share one module, which is not this one
    import gc
    import os
    import threading

    # A seventh of the start would go into what it does not need: to look for garbage and
    # for pydantic's plugins, and to set up a log that ``set_up_log`` replaces.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    os.environ.setdefault("LOGURU_AUTOINIT", "no")

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
import gc
import importlib
import importlib.util
import inspect
import logging
import math
import os
import re
import shlex
import stat
import threading
import time
import tomllib
import types
import weakref
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO, TypeVar, cast

import pluggy
from loguru import logger
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

# isort: off
# Names for plugins to import from here, and for this file.
from bossbot_contracts import (
    ATTEMPT_STATUSES, HERE, HOOKS, MAX_LINE, MAY_SAY, N_, OWN_CAUSES, PARTS,
    QUICK_HOOKS, SENTENCES, TERMINAL_STATUSES, TOO_DEEP, VETOES, Accepted, Action,
    Archive, Bench, BossBot, BossbotError, Cause, Change, ChannelId, Client, Courier,
    Database, Encoded, Engine, Facts, Fetched, Finding, Guilds, Hooks, Job, JobFailed,
    MediaFile, Message, OutOfReach, OwnPath, Part, Passage, Platform, PlatformConfig,
    PlatformName, PluginConfig, PluginError, Post, Priority, Probe, Progress, Queue,
    QueueFull, Ran, Refused, Report, Request, RoleId, Route, Router, Runner,
    StartError, Status, Storage, Stored, Subcommand, UserId, Worker, _, catalogues,
    checked, cut_line, did_you_mean, escape, format_size, format_time, hide_secrets,
    hookimpl, is_deep, language, ngettext, now, one_line, public_url, redact,
    secret_values,
)  # fmt: skip

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

# ── Settings ───────────────────────────────────────────────────────────────────────


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
    max_queue_size: int = Field(50, ge=1, description="waiting links per server")
    max_items: int = Field(
        50, ge=1, description="files per link; the rest of a gallery is left out"
    )
    max_download_size: ByteSize = Field(
        ByteSize(200 * 2**20), description="the largest source file"
    )
    max_job_size: ByteSize = Field(
        ByteSize(500 * 2**20), description="all source files of one link together"
    )
    max_file_size: ByteSize = Field(
        ByteSize(50 * 2**20), description="the largest posted file"
    )
    process_timeout_s: float = Field(
        1800, gt=0, description="time limit for one plugin to process a link's files"
    )
    allow_writable_plugins: bool = Field(
        False, description="start even if anyone on this machine can change plugins"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="lowest level on the console; the log file always has every detail",
    )
    log_retention_days: int = Field(
        14, ge=1, le=36500, description="how long log files are kept"
    )
    max_log_size: ByteSize = Field(
        ByteSize(100 * 2**20), description="all log files; the oldest are deleted first"
    )
    trace_hooks: bool = Field(
        False, description="log every call of a hook; useful for writing plugins"
    )
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="a table for each plugin"
    )

    _in_words = field_validator("*", mode="wrap")(checked)


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
        if is_deep([source.values for source in sources]):
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
    for name, values, _text in sources[1:]:
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
    """The settings in the environment and in a file of variables; raises ValueError."""
    import pydantic_settings  # here, so that the downloads' processes do without it

    class Variables(Settings, pydantic_settings.BaseSettings):
        model_config = pydantic_settings.SettingsConfigDict(
            env_prefix="BOSS_BOT_",
            env_nested_delimiter="__",
            env_ignore_empty=True,
            dotenv_filtering="match_prefix",
            defer_build=True,  # only the fields' names are needed
        )

    yield _Source("the environment", pydantic_settings.EnvSettingsSource(Variables)())
    source = pydantic_settings.DotEnvSettingsSource(Variables, env_file=dotenv)
    yield _Source(str(dotenv), source())


def _read_toml(path: Path) -> _Source:
    try:
        text = path.read_text("utf-8-sig")  # editors on Windows put a mark first
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
        if not is_deep(tables):
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
    """A line for each wrong value: file, line, key, and the expected value."""
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        wrong = item["msg"].removeprefix("Value error, ")
        if item["type"].startswith("byte_size"):
            wrong = "that is not a size; write one such as 20MiB"
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
    """Close a file with secrets to everybody but its owner; returns a line about that,
    or "" if it was closed already. Raises OSError if there is no file."""
    if not path.stat().st_mode & 0o77:
        return ""
    try:
        path.chmod(0o600)
        done = "set to 0600"
    except OSError as error:  # it belongs to somebody else
        done = f"chmod 600 failed ({error.strerror})"
    return f"{path} was readable by others: {done}"


# ── Plugins: find and import ───────────────────────────────────────────────────────

PLUGIN_PACKAGE = "bossbot_plugins"  # so that a plugin queue.py shadows nothing
OURS = HERE / "plugins"
SHELVES = ("parts", "engines", "platforms", "processors", "chat", "owner")


@dataclass
class Plugin:
    """A plugin that was found, and its state."""

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
    """The folders of plugins and their libraries, the owner's first."""
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
    """The code that anyone on this machine may write to, and the remedy: the bot's own,
    everything that can be imported from folders, and the folders of both. "" for none,
    or if the owner allows it."""
    if settings.allow_writable_plugins:
        return ""
    code = {HERE, HERE / "config.toml", HERE / "plugins", *folders}
    for path in [path for folder in (HERE, *folders) for path in folder.glob("*")]:
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


def check_api(needed: object) -> None:
    """Raises PluginError if a plugin needs another version of the API."""
    if needed not in range(API + 1):
        raise PluginError(
            f"it needs version {needed} of the plugin API, and this bot has "
            f"{API}. Update the bot: git pull"
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
    """Make the next import read a plugin, its own modules and the libraries from disk
    again; returns the current ones. Otherwise, all plugins share a library."""
    name, forgotten = f"{PLUGIN_PACKAGE}.{stem}", {}
    for known in [known for known in sys.modules if _in_plugins(known)]:
        if f"{known}.".startswith((f"{name}.", f"{PLUGIN_PACKAGE}._")):
            forgotten[known] = sys.modules.pop(known)
            _drop_older_bytecode(forgotten[known])
            # Else "from bossbot_plugins import _x" would find it there.
            parent, _, child = known.rpartition(".")
            vars(sys.modules.get(parent, types)).pop(child, None)
    for folder in sys.modules[PLUGIN_PACKAGE].__path__:  # files may be new there
        if finder := sys.path_importer_cache.get(folder):
            finder.invalidate_caches()  # type: ignore[attr-defined]
    return forgotten


def _drop_older_bytecode(module: types.ModuleType) -> None:
    """Python takes bytecode for that of a file that has changed within a second, to as
    many bytes."""
    spec = module.__spec__
    if spec and spec.origin and spec.cached:
        with contextlib.suppress(OSError):  # it may be missing
            bytecode = Path(spec.cached)
            if bytecode.stat().st_mtime_ns <= Path(spec.origin).stat().st_mtime_ns:
                bytecode.unlink()


def _in_plugins(module: str) -> bool:
    return f"{module}.".startswith(f"{PLUGIN_PACKAGE}.")


# ── Plugins: load and call ─────────────────────────────────────────────────────────


async def in_thread(work: Callable[[], Any]) -> Any:
    """The result of a function that may block, from a thread of its own: a plugin that
    blocks for ever takes no place from others, nor does it keep the bot from ending.
    Language and limit are those of the caller."""
    result, context = Future[Any](), copy_context()
    result.set_running_or_notify_cancel()

    def body() -> None:
        try:
            result.set_result(context.run(work))
        except StopIteration as error:  # no future takes it
            result.set_exception(RuntimeError(repr(error)))
        except BaseException as error:  # SystemExit, too, is for the caller
            result.set_exception(error)

    _thread.start_new_thread(body, ())  # threading's own threads would hold up the end
    return await asyncio.wrap_future(result)


_is_coroutine = lru_cache(1000)(inspect.iscoroutinefunction)


@dataclass(slots=True, eq=False)
class _HookCall:
    """A call of a hook, while it lasts."""

    clock: _Clock
    task: asyncio.Task[Any]  # which the clock cancels
    due_s: float  # by the loop's time
    overdue: bool = False  # and cancelled
    away: int = 0  # how often it is off the clock now
    left_s: float = 0.0  # of its limit, when it went off

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.task.get_loop()


_hook_call: ContextVar[_HookCall | None] = ContextVar("call", default=None)
_counting = threading.Lock()  # hooks may run in threads


class _Clock:
    """Ends the calls of hooks that are overdue. It has one timer for all of them: most
    are over long before, and each timer would take as long as a call."""

    def __init__(self) -> None:
        self.calls: set[_HookCall] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the timer

    def watch(self, call: _HookCall) -> None:
        """End a call when it is due."""
        loop = call.loop
        if self._loop is loop and self._timer:
            if self._timer.when() <= call.due_s:
                return
            self._timer.cancel()
        self._loop, self._timer = loop, loop.call_at(call.due_s, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now_s = None, loop.time()
        calls = [call for call in self.calls if call.loop is loop]
        for call in calls:
            if call.due_s <= now_s and not call.overdue:
                call.overdue = call.task.cancel()
        if waiting := [c.due_s for c in calls if now_s < c.due_s < math.inf]:
            self._timer = loop.call_at(min(waiting), self._ring, loop)


def time_left_s() -> float | None:
    """The seconds that the calling hook has left; None for no limit."""
    call = _hook_call.get()
    if call is None or call.due_s == math.inf:
        return None
    return call.due_s - call.loop.time()


@contextlib.contextmanager
def off_the_clock() -> Iterator[None]:
    """The time that a hook, or a task of it, spends in here does not count towards its
    limit."""
    call = _hook_call.get()
    if call is None:
        yield
        return
    with _counting:
        if not call.away:
            call.left_s, call.due_s = call.due_s - call.loop.time(), math.inf
        call.away += 1
    try:
        yield
    finally:
        with _counting:
            call.away -= 1
            if not call.away:
                call.due_s = call.loop.time() + call.left_s
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    call.loop.call_soon_threadsafe(call.clock.watch, call)


class HookManager(pluggy.PluginManager):
    """A manager that looks for hooks only among the names of hooks."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name in HOOKS else None


BROKEN_CHECK = N_(
    "A check of this bot is broken. Its owner can find the reason in the log."
)
BROKEN_GUILD = N_(
    "This server's settings cannot be read. The bot's owner can find the reason in "
    "the log."
)
ENDS = (KeyboardInterrupt, GeneratorExit)  # of the bot, and of a task
MAX_HOOK_FAILURES = 5  # of one hook in a row; then the plugin is switched off


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
        self._clock = _Clock()
        self.changes = 0  # how often a plugin has changed
        self.changed()
        # Called after each call: plugin, hook, its time, the answer, and
        # the job or action that it was about.
        self.on_call: Callable[[str, str, float, Any, Any], None] | None = None

    @property
    def settings(self) -> Settings:
        return self.app.settings

    @cached_property
    def shipped(self) -> dict[str, Any]:
        """What config.toml sets for plugins, as it was when that was first asked."""
        tables = _read_toml(HERE / "config.toml").values.get("plugins")
        return tables if isinstance(tables, dict) else {}

    def changed(self) -> None:
        """Make the lists of what plugins have anew, since one has changed."""
        self.changes += 1
        # New ones, since a thread may still be filling the old ones.
        self._registered: dict[str, types.MappingProxyType[str, Any]] = {}
        self._impls: dict[tuple[str, str | None], list[pluggy.HookImpl]] = {}

    def registered(self, kind: str) -> types.MappingProxyType[str, Any]:
        """Everything of a kind (engines, platforms, subcommands) by name, in order."""
        if kind not in (known := self._registered):
            things = [t for plugin in self.all.values() for t in getattr(plugin, kind)]
            found = {one.name: one for one in sorted(things, key=lambda t: t.name)}
            known[kind] = types.MappingProxyType(found)
        return known[kind]

    # Load

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
        libraries = {p.name for folder in folders[1:] for p in folder.glob("_[!_]*.py")}
        for path in sorted(own.glob("_[!_]*")):
            if f"{path.stem}.py" in libraries and path.suffix in (".py", ""):
                logger.warning("{} takes the place of ours, for all plugins", path)
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
        whole. If that fails, the active one stays on, and the returned one has the
        reason. See ``App.reload``."""
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
        """Restore a plugin from before a reload, with all that it registered; False, with
        only its checks, if it was off."""
        if old is None or old.off:
            self._keep_checks(old)
            return False
        self._take_back(old.stem)
        sys.modules.update(old.modules)
        self.all[old.stem] = old
        self.changed()
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
            try:
                module = importlib.import_module(f"{PLUGIN_PACKAGE}.{plugin.stem}")
            except ImportError:  # it may import what only a later version has
                source = plugin.path.read_bytes()
                if asked := re.search(rb"^API\b.*= *(\d+)", source, re.MULTILINE):
                    check_api(int(asked[1]))
                raise
            check_api(getattr(module, "API", API))
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
        self.changed()
        return self.all[plugin.stem]

    def _take_back(self, stem: str, why: str | BaseException = "") -> None:
        """Undo everything that a plugin registered; its errors are logged."""
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
        self.changed()

    def switch_off(self, stem: str, why: str | BaseException) -> None:
        """Undo everything that a plugin registered, and end its life; if an error is the
        reason, its checks stay on."""
        old = self.all.get(stem)
        self._take_back(stem, why)
        if isinstance(why, BaseException):
            self._keep_checks(old)
        if old:
            self.on_off(old)

    def _keep_checks(self, old: Plugin | None) -> None:
        """Let a plugin that is off refuse what it did."""
        kept = {h: impl for h, impl in old.impls.items() if h in VETOES} if old else {}
        if old and kept and not (plugin := self.all[old.stem]).impls:
            plugin.impls, plugin.config = kept, old.config
            plugin.guild_config, plugin.usual = old.guild_config, old.usual
            self.changed()
            logger.warning("{} is off, but its checks stay on", old.stem)

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
        values = self.settings.plugins.get(plugin.stem, {})
        if plugin.replaces:  # config.toml may have settings that only ours has
            ours, known = self.shipped.get(plugin.stem, {}).items(), model.model_fields
            values = {
                k: v for k, v in values.items() if k in known or (k, v) not in ours
            }
        try:
            plugin.config = model(**values)
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
                if not isinstance(thing.name, str):
                    raise PluginError(f"{kind}: the name {thing.name!r} is not a text")
                if thing.name in self.registered(kind):
                    raise PluginError(f"{kind}: {thing.name!r} is there already")
                getattr(plugin, kind).append(thing)
                self.changed()
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
        """The result of a registration hook; raises PluginError for the wrong type."""
        impl = plugin.impls.get(hook)
        answer: Any = self.invoke(impl, plugin) if impl else kind()
        if not isinstance(answer, kind) or not all(isinstance(a, of) for a in answer):
            raise PluginError(
                f"{hook}() must return a {kind.__name__} of {of.__name__}"
            )
        return answer

    # Call

    def impls(self, hook: str, stem: str | None = None) -> Sequence[pluggy.HookImpl]:
        """Implementations in the order of calls: tryfirst, then by name, trylast."""
        if (hook, stem) not in (known := self._impls):
            plugins = [p for p in self.all.values() if stem in (None, p.stem)]
            found = [p.impls[hook] for p in plugins if hook in p.impls]
            found.sort(key=lambda i: (i.trylast - i.tryfirst, i.plugin_name))
            known[hook, stem] = found
        return known[hook, stem]

    def invoke(
        self,
        impl: pluggy.HookImpl,
        plugin: Plugin,
        closed: bool = False,
        **values: Any,
    ) -> Any:
        """Call an implementation with the arguments it asks for; ``closed`` for a check,
        which does not go on with wrong settings."""
        values["app"], values["settings"] = self.app, self.app.settings
        values["config"] = plugin.config
        if "guild" in impl.argnames:
            asked = values.get("job") or values["action"]
            values["guild"] = self.guild_config(plugin, asked, closed)
        if self.app.settings.trace_hooks:
            hook, names = impl.function.__name__, ", ".join(impl.argnames)
            if hook == "run" or hook.startswith("register_"):
                logger.info("{}.{}({})", plugin.stem, hook, names)
        return impl.function(*[values[name] for name in impl.argnames])

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
        name; a check that failed refuses. Raises the errors that a hook may raise:
        Refused, JobFailed."""
        plugin, began_s = self.of[impl.plugin], time.perf_counter()
        limit_s = self.quick_limit_s if hook in QUICK_HOOKS else self.limit_s
        if hook == "process_files":
            limit_s = self.settings.process_timeout_s
        said: tuple[type[BaseException], ...] = (*ENDS, *MAY_SAY.get(hook, ()))
        closed = hook in VETOES
        task = asyncio.current_task()
        assert task
        due_s, cancels = task.get_loop().time() + limit_s, task.cancelling()
        call = _HookCall(self._clock, task, due_s)
        of_task = _hook_call.set(call)
        answer: Any = None
        try:
            self._clock.calls.add(call)
            self._clock.watch(call)
            if _is_coroutine(impl.function):
                answer = await self.invoke(impl, plugin, closed, **values)
            else:
                work = partial(self.invoke, impl, plugin, closed, **values)
                answer = await in_thread(work)
            if answer is not None and inspect.isawaitable(answer):  # decorated
                answer = await answer
            if call.overdue:  # and it has swallowed the cancel
                raise TimeoutError
            if isinstance(answer, Refused) and hook in MAY_SAY:  # not raised
                raise answer
            if closed and answer is not None:  # perhaps meant as a refusal
                kind = type(answer).__name__
                raise TypeError(f"it returned a {kind}. To veto, raise Refused")
        except said as error:
            answer = error
            raise
        # The boundary of a plugin: its failure must not become the job's.
        except BaseException as error:
            answer = error
            # Otherwise, one from just before the call counts, too.
            known = cancels + 1 if call.overdue else 0
            if isinstance(error, asyncio.CancelledError) and task.cancelling() > known:
                raise  # the caller ends
            if call.overdue:
                answer = error = TimeoutError(f"it took longer than {limit_s:g} s")
            if not self.app.stopping.is_set():  # else its parts may be gone
                self.failed(plugin, hook, error)
            if closed:
                raise Refused(_(BROKEN_CHECK)) from error
            return None
        finally:
            self._clock.calls.discard(call)
            _hook_call.reset(of_task)
            if call.overdue:
                task.uncancel()
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
        """Count a failure of a hook; True when it was one too many. A plugin with
        checks loses only that hook, since a check never goes away by itself. An
        ``OutOfReach`` is not the plugin's failure."""
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
                self.changed()
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
        """The result for ``values[folded]`` after each plugin has changed it."""
        for impl in self.impls(hook):
            answer = await self._call(impl, hook, **values)
            if isinstance(answer, type(values[folded])):
                values[folded] = answer
            elif answer is not None:
                wrong = TypeError(f"it returned a {type(answer).__name__}")
                self.failed(self.of[impl.plugin], hook, wrong)
        return values[folded]


# ── The app: intake, feed, start and stop ──────────────────────────────────────────

NO_LINKS = N_("I cannot take links now: the queue is out of reach or full.")

# Tasks of plugins, by stem, and the hook call that started them.
_Tasks = weakref.WeakKeyDictionary[asyncio.Task[Any], _HookCall | None]
_started: defaultdict[str, _Tasks] = defaultdict(weakref.WeakKeyDictionary)


@lru_cache(10_000)
def _plugin_of(module: str) -> str:
    """The stem of the plugin that a module belongs to; "" if there is none."""
    found = re.match(rf"{PLUGIN_PACKAGE}\.(?!_)([^.]+)", module)
    return found[1] if found else ""


def _start_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> asyncio.Task[Any]:
    """The loop's task factory: a task belongs to the plugin whose code starts it, so
    that it can end with the plugin."""
    task = asyncio.Task(work, loop=loop, **options)
    frame = sys._getframe(1).f_back
    while frame and (name := frame.f_globals.get("__name__", "")) != __name__:
        if stem := _plugin_of(name):  # what a library starts is its caller's
            _started[stem][task] = _hook_call.get()
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
    turns = 6  # at a time, of links that are taken in
    turn_s = 0.05  # at most: a check may be slow, or the disk

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
        self._turns = asyncio.Semaphore(self.turns)

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
            if plugin.off and (plugin.kind == "own" or plugin.stem.endswith(name))
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
        if gateway or not self.queue.shared:  # else a gateway calls the plugins
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
        """Load a plugin again from disk, with its tables, commands and life. If that
        fails, the active one keeps running, and the returned one has the reason. A part
        of it takes effect at the next start."""
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
                is_back = self.plugins.put_back(old)  # at once: it may have checks
                await asyncio.wait(self._endings)
                if old and is_back and self.has_gateway:
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
            except ENDS:
                raise
            except BaseException as error:  # the boundary of a plugin
                ending = bool(task and task.cancelling())
                if ending and isinstance(error, asyncio.CancelledError):
                    raise
                if now() - began_s > 10 * self.run_again_s:
                    plugin.failures.pop("run", None)  # it had been running
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
            # A hook that is working on a job keeps its tasks.
            started = {
                task
                for task, call in found
                if task.get_loop() is loop
                and not (self._alive and call and call in call.clock.calls)
            }
        tasks = (started | ({life} if life else set())) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, alive = await asyncio.wait(tasks, timeout=self.end_within_s)
            if alive:
                logger.error("plugin {} did not stop; restart the bot", stem)
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
        async with self.turn():
            return await self._take_in(job)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one of the few turns, first come, first served; it ends after
        ``turn_s`` at the latest. Of many links at once, the first thus get their answers
        before the last are looked at."""
        await self._turns.acquire()
        with contextlib.ExitStack() as ends:
            ends.callback(self._turns.release)
            late = asyncio.get_running_loop().call_later(self.turn_s, ends.close)
            ends.callback(late.cancel)
            yield

    async def _take_in(self, job: Job) -> Accepted | None:
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
        except Exception as error:  # in any case, no plugin may count the link
            await self.plugins.call("job_refused", job=job)
            if isinstance(error, OutOfReach):
                raise OutOfReach(_(NO_LINKS)) from error
            raise

    # The feed

    async def _feed(self) -> None:
        """Pass on the changes of the queue, their only source."""
        async for change in self.queue.changes():
            if change:
                self._tell(change)

    def _tell(self, change: Change) -> None:
        """Log a committed change and call the plugins, for each job in order. Progress
        that comes while they are still busy with the last is left out."""
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


# ── The log ────────────────────────────────────────────────────────────────────────

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _ToLoguru(logging.Handler):
    """Passes the log of libraries on to loguru."""

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
        return day not in os.path.basename(file.name) or size > most / 10 > 0

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
        error, record["exception"] = record["exception"], None
        if error and isinstance(error.value, OutOfReach):  # it says all there is to say
            lines[0] += f": {error.value}"
        elif error:
            trace = traceback.TracebackException(*error, capture_locals=debug)
            found = "".join(trace.format()).splitlines()
            if len(found) > MAX_TRACE:
                found[MAX_TRACE // 2 : -MAX_TRACE // 2] = ["..."]
            lines += map(cut_line, found)
        text = "\n".join(one_line(line, fold=False) for line in lines)
        record["extra"]["text"] = redact(text).replace("\n", "\n  ")

    def write(message: Any) -> None:
        bad = message.record["level"].no >= logging.ERROR
        print(message, end="", file=sys.stderr if bad else console, flush=True)

    style = "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {extra[text]}"
    level = "DEBUG" if debug else settings.log_level
    common: dict[str, Any] = {"format": style, "diagnose": False, "backtrace": False}
    logger.remove()
    logger.configure(patcher=clean)
    lowest = level if console is sys.stdout or debug else "WARNING"
    logger.add(write, level=lowest, **common)
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
    # Every message, and each log-in.
    least = {"gateway": logging.INFO, "http": logging.INFO, "client": logging.WARNING}
    for name, number in least.items():
        library = logging.getLogger(f"discord.{name}")
        library.setLevel(logging.NOTSET if debug else number)


# ── Command line ───────────────────────────────────────────────────────────────────

STOP_WITHIN_S = 25.0  # then the process ends, whatever a plugin still does


def prepare_data(data: Path) -> None:
    """Make the folders of the data folder; raises StartError if that is impossible."""
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
            says = f"{command.help[:1].upper()}{command.help[1:]}."
            subparser = subparsers.add_parser(
                command.name, help=command.help, description=says
            )
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
    except BrokenPipeError:  # the reader of the output has gone
        _open_standard_streams(("stdout", "stderr"))
        return 1


def _main(argv: Sequence[str] | None) -> int:
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--config", type=Path, metavar="PATH", help="a settings file")
    options.add_argument("--debug", action="store_true", help="log everything")
    version = f"Boss-Bot {__version__} (plugin API {API})"
    options.add_argument("--version", action="version", version=version)
    known, rest = options.parse_known_args(argv)  # the plugins' commands come later
    os.umask(0o077)  # the bot's files are private to its owner
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
            hint = did_you_mean(name, ("--config", "--debug", "--version", "--help"))
            raise StartError(f"Unknown option {name}{hint}. Run it with --help.")
        first = name == "run" and not settings.discord_token and sys.stdin.isatty()
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
        gc.freeze()  # what is there stays
        gc.enable()
        # A plugin that does not stop would keep the process for ever.
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
    """Open closed or unread standard streams on the null device: otherwise the next
    file or socket would take their numbers."""
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
