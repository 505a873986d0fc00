"""What several tests share: settings, apps, plugins, and a home to run in."""

import compileall
import contextlib
import copy
import functools
import gc
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import warm_python
from loguru import logger
from planted import (  # noqa: F401 (hooks)
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from run_once import PluginFinder

import bossbot
import bossbot_contracts
from bossbot import App, Job, Settings

ROOT = Path(bossbot.__file__).parent
CORE = sorted(path.name for path in ROOT.glob("bossbot*.py"))

# The parts that carry a link from its router to its storage: all but Discord's side.
PARTS = (
    "platform_router",
    "sqlite_database",
    "sqlite_facts",
    "toml_guilds",
    "sqlite_queue",
    "local_worker",
    "child_runner",
    "file_storage",
)
# Those that a link needs to be queued, beside the owner's `nowhere` and `idle`.
QUEUEING = (*PARTS[:5], "file_storage")
SUPPORT_PLUGINS = ROOT / "tests" / "support" / "plugins"


def pytest_configure(config: pytest.Config) -> None:
    """Compile the bot once: hundreds of copies of it are started. Of xdist's processes,
    one compiles the tests, too, for which the others wait."""
    sys.dont_write_bytecode = False
    gc.disable()  # all that is made while tests are collected stays
    worker = getattr(config, "workerinput", None)
    if not worker:
        for name in CORE:
            compileall.compile_file(ROOT / name, quiet=2)
        compileall.compile_dir(ROOT / "plugins", quiet=2)
    elif worker["workerid"] != "gw0":
        end_s = time.monotonic() + 60
        while not compiled(config).exists() and time.monotonic() < end_s:
            time.sleep(0.05)


def compiled(config: pytest.Config) -> Path:
    """The file that says that the tests of this run are compiled."""
    run: str = config.workerinput["testrunuid"]  # type: ignore[attr-defined]
    return Path(tempfile.gettempdir(), f"boss-bot-tests-{run}")


# What starts the real engines, for all tests of a process or of a file.
ENGINES_STARTED_BY = {"labs", "shared_web", "led"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the real engines come first: xdist gives each process a part of
    the list in one piece, so that few of them start the engines. Then come the promises,
    which take the longest: short tests are those that are handed on at the end."""
    first = {
        item.path
        for item in items
        if not ENGINES_STARTED_BY.isdisjoint(getattr(item, "fixturenames", ()))
    }
    items.sort(key=lambda i: (i.path not in first, i.path.parent.name != "promises"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write no bytecode from here on: of a plugin that a test changes within a second,
    to as many bytes, Python would go on reading it."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 5, 5)
    if hasattr(session.config, "workerinput"):
        compiled(session.config).touch()


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        compiled(config).unlink(missing_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For ``-n auto``: three more than there are cores, since tests often wait."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return 3 + (len(affinity(0)) if affinity else os.cpu_count() or 1)


def link_plugins(folder: Path, *stems: str) -> Path:
    """Put some of the repository's plugins, and all libraries, on the shelves of a
    folder, to be an app's ``ours``; returns it."""
    for shelf in ROOT.glob("plugins/*/"):
        (folder / shelf.name).mkdir(parents=True, exist_ok=True)
        for path in shelf.iterdir():
            link = folder / shelf.name / path.name
            # "__pycache__" is one of them: it is read through the links, too.
            wanted = path.stem in stems or path.stem.startswith("_")
            if wanted and not link.is_symlink():
                link.symlink_to(path)
    return folder


_shared: dict[tuple[str, ...], Path] = {}  # by their plugins; () has all of them


def share_plugins_in(folder: Path) -> None:
    """Where `our_plugins` makes its folders from now on."""
    _shared.clear()
    _shared[()] = folder


def our_plugins(*stems: str) -> Path:
    """The same for tests that change nothing there: made once for the same plugins."""
    wanted = tuple(sorted({*stems}))
    if wanted not in _shared:
        _shared[wanted] = link_plugins(_shared[()] / str(len(_shared)), *wanted)
    return _shared[wanted]


def copy_bot(folder: Path, *names: str, stems: Iterable[str] = ()) -> None:
    """Copy files or folders of the repository, of the plugins in single files only
    these, if any are named; their bytecode counts for the copies, too, which keep the
    times."""
    wanted = {*stems}

    def left_out(place: str, names: list[str]) -> set[str]:
        others = {name for name in names if name.endswith((".po", ".pot"))}
        for name in names:
            stem, _, tag = name.removesuffix(".pyc").partition(".")
            unnamed = wanted and stem not in wanted and not stem.startswith("_")
            if name.endswith((".py", ".pyc")) and unnamed:
                others.add(name)
            if name.endswith(".pyc") and tag != sys.implementation.cache_tag:
                others.add(name)
        return others

    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        source = ROOT / name
        if source.is_dir():
            target = folder / name
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=left_out)
            continue
        shutil.copy2(source, folder)
        compiled = Path(importlib.util.cache_from_source(source))
        if compiled.exists():
            (folder / "__pycache__").mkdir(exist_ok=True)
            shutil.copy2(compiled, folder / "__pycache__")


def edit(path: Path, old: str, new: str) -> None:
    """Change a plugin's file as its owner does."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def make_job(**fields: Any) -> Job:
    """A job of guild 1, channel 2 and member 3; keywords replace what is here."""
    number = secrets.token_hex(5)
    defaults = {
        "id": number,
        "url": f"https://a.example/{number}",
        "engine": "e",
        "guild_id": 1,
        "channel_id": 2,
        "user_id": 3,
        "request_key": f"request:{number}",
    }
    return Job(**{**defaults, **fields})


def spread(values: dict[str, Any]) -> dict[str, Any]:
    """Settings for keywords: ``retention__max_storage=1`` is a plugin's, as in the
    environment."""
    plain = {name: value for name, value in values.items() if "__" not in name}
    plugins = {stem: dict(table) for stem, table in plain.pop("plugins", {}).items()}
    for name in values.keys() - plain.keys() - {"plugins"}:
        stem, _, key = name.partition("__")
        plugins.setdefault(stem, {})[key] = values[name]
    return {**plain, "plugins": plugins}


def share_runner(app: App, other: App) -> None:
    """Give an app the warm children of another one, which ends them."""

    async def nothing() -> None:
        pass

    runner: Any = copy.copy(other.runner)
    runner.app, runner.start, runner.stop = app, nothing, nothing
    runner._spare, runner._renew_spare = None, nothing  # it would outlive the app
    runner.config = app.plugins.all["child_runner"].config
    app.runner = runner


def be_quick(app: App) -> App:
    """Let an app look for what is due ten times a second; returns it."""
    queue: Any = app.queue
    queue.tick_s = 0.1
    return app


MakeSettings = Callable[..., Settings]
MakeApp = Callable[..., App]
SmallApp = Callable[..., App]
WritePlugin = Callable[[str, str], Path]
AddPlugin = Callable[..., Path]
WithTables = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> Iterator[None]:
    """No log on stderr; ``logged`` has what a test wants of it."""
    logger.remove()
    with pytest.MonkeyPatch.context() as patch:
        # Loguru asks for all of them whenever a log is opened.
        patch.setattr(sysconfig, "get_path", functools.cache(sysconfig.get_path))
        yield


@pytest.fixture(autouse=True, scope="session")
def _our_code_runs_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    ours = tmp_path_factory.mktemp("ours")
    share_plugins_in(ours)
    with pytest.MonkeyPatch.context() as patch:
        finder = PluginFinder(f"{ours}/", f"{ROOT}/plugins/")
        patch.setattr(sys, "meta_path", [finder, *sys.meta_path])
        yield
    _shared.clear()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("BOSS_BOT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(bossbot_contracts, "_secrets", set())
    monkeypatch.setattr(bossbot_contracts, "_secrets_of", {})


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings with a data folder of the test's own; keywords replace what is here:
    see ``spread``."""

    def make(**values: Any) -> Settings:
        (tmp_path / "plugins").mkdir(exist_ok=True)
        defaults = {
            "data_dir": tmp_path / "data",
            "plugins_dir": tmp_path / "plugins",
            "allow_writable_plugins": True,  # else each load looks at every file
            "child_runner__allow_private_addresses": True,
            "retention__min_free_space": 0,
        }
        return Settings(**spread({**defaults, **values}))

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """With no plugins of the owner's."""
    return make_settings()


@pytest.fixture
def write_plugin(tmp_path: Path) -> WritePlugin:
    """Writes ``{name}.py`` into tmp_path/plugins, which it makes."""

    def write(name: str, code: str) -> Path:
        path = tmp_path / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, "utf-8")
        return path

    return write


@pytest.fixture
def add_plugin(tmp_path: Path) -> AddPlugin:
    """Copies a plugin's file into tmp_path/plugins, which it makes; under another name
    if one is given."""

    def add(source: Path, name: str = "") -> Path:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(source, folder / f"{name or source.stem}.py"))

    return add


@pytest.fixture
def with_tables(add_plugin: AddPlugin) -> WithTables:
    """Adds a plugin that registers these scripts; or ``source``, which does."""

    def add(
        name: str, *scripts: Any, source: Path = SUPPORT_PLUGINS / "tables.py"
    ) -> Path:
        path = add_plugin(source, name)
        path.with_suffix(".json").write_text(json.dumps(scripts), "utf-8")
        return path

    return add


@pytest.fixture
async def make_app() -> AsyncIterator[MakeApp]:
    """Apps with their plugins loaded and their folders made, not started; what they
    started is stopped in the end. ``ours`` has the plugins in place of ours."""
    made: list[App] = []

    def make(settings: Settings, ours: Path = ROOT / "plugins") -> App:
        app = App(settings, ours)
        app.plugins.load()
        bossbot.prepare_data(settings.data_dir)
        made.append(app)
        return app

    yield make
    for app in made:
        await app.stop()


@pytest.fixture
def small_app(make_app: MakeApp, make_settings: MakeSettings) -> SmallApp:
    """Apps with the owner's plugins in tmp_path/plugins and some of ours, by name, that
    take links in, queue them, and do nothing more; keywords are settings."""

    def make(*ours: str, **values: Any) -> App:
        settings = make_settings(**values)
        for name in ("nowhere", "idle"):
            shutil.copy(SUPPORT_PLUGINS / f"{name}.py", settings.plugins_dir)
        return make_app(settings, our_plugins(*QUEUEING, *ours))

    return make


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The log's messages, "LEVEL message", as they come."""
    lines: list[str] = []
    sink = logger.add(
        lambda message: lines.append(str(message).rstrip("\n")),
        level="DEBUG",
        format="{level} {message}",
    )
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where media.py keeps what it made, for the whole run and all its processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "media"
    folder.mkdir(exist_ok=True)
    return folder


@dataclass
class Home:
    """A copy of the bot, to be run as a user runs it."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    def environment(self, **extra: str) -> dict[str, str]:
        """A plain one: nothing of the tests', no settings."""
        plain = {n: os.environ[n] for n in ("PATH", "HOME") if n in os.environ}
        return {**plain, **extra}

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, str(self.path / "bossbot.py"), *map(str, arguments)]

    def run(
        self,
        *arguments: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        text_in: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        """``python bossbot.py ...``, off a terminal."""
        command, files = self.command(*arguments), []
        with contextlib.ExitStack() as stack:
            for _ in ("stdout", "stderr"):
                files.append(stack.enter_context(tempfile.TemporaryFile()))
            reading, writing = os.pipe()
            assert os.write(writing, text_in.encode()) == len(text_in.encode())
            os.close(writing)
            process = warm_python.start(
                command[1:],
                self.environment(**(env or {})),
                cwd or self.path,
                stdin=reading,
                stdout=files[0],
                stderr=files[1],
            )
            os.close(reading)
            code, texts = process.wait(300), []
            for file in files:
                file.seek(0)
                texts.append(file.read().decode())
        done = subprocess.CompletedProcess(command, code, *texts)
        with self.path.with_name("output.txt").open("a", encoding="utf-8") as kept:
            kept.write(done.stdout + done.stderr)  # to be searched: see planted.py
        return done

    def plugin(self, name: str, code: str) -> Path:
        path = self.path / "plugins" / f"{name}.py"
        path.write_text(code, "utf-8")
        return path

    def add_plugin(self, source: Path, name: str = "") -> Path:
        target = self.path / "plugins" / f"{name or source.stem}.py"
        return Path(shutil.copy(source, target))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    copy_bot(path, *CORE, "config.toml", "plugins")
    return Home(path)


@pytest.fixture
def home_without_engines(home: Home) -> Home:
    """With all plugins but the engines, which take a second of the processor to start,
    and what goes with them."""
    for shelf in ("engines", "platforms"):
        for path in home.path.glob(f"plugins/{shelf}/[!_]*.py"):
            path.unlink()
    (home.path / "config.toml").write_text("")  # it has settings of the platforms
    return home


@pytest.fixture
def bare_home(tmp_path: Path) -> Home:
    """With the commands that need no network, and nothing else, not even Discord's
    library: it starts faster."""
    needed = (
        *PARTS,
        "run",
        "check",
        "get",
        "plugins",
        "setup",
        "which",
    )
    path = tmp_path / "home"
    copy_bot(path, *CORE, "plugins", stems=needed)
    for package in path.glob("plugins/*/[!_]*/"):
        shutil.rmtree(package)
    (path / "config.toml").write_text("")  # it has settings of the others
    home = Home(path)
    home.add_plugin(SUPPORT_PLUGINS / "nowhere.py")
    return home
