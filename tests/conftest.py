"""What several tests share: settings, plugins written on the spot, a home to run in."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from planted import (  # noqa: F401 (hooks)
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

import bossbot
from bossbot import Pipeline, Plugins, Settings

ROOT = Path(bossbot.__file__).parent

# What carries a link from its router to its storage: everything but a client's side.
PARTS = (
    "router",
    "database",
    "sqlite_queue",
    "worker",
    "log",
    "child_processes",
    "file_storage",
)


def link_plugins(folder: Path, *stems: str) -> Path:
    """Put some of the repository's plugins into a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        (folder / f"{stem}.py").symlink_to(ROOT / "plugins" / f"{stem}.py")
    return folder


def namespace(part: Any) -> dict[str, Any]:
    """The global names of the plugin that a part comes from, as it was loaded."""
    return type(part).__init__.__globals__


def share_runner(pipeline: Pipeline, other: Pipeline) -> None:
    """Give a pipeline the warm children of another one, which ends them."""

    async def nothing() -> None:
        pass

    runner: Any = copy.copy(other.runner)
    runner.pipeline, runner.stop = pipeline, nothing
    pipeline.runner = runner


MakeSettings = Callable[..., Settings]
MakePipeline = Callable[..., Pipeline]
WritePlugin = Callable[[str, str], Path]


@pytest.fixture(autouse=True, scope="session")
def _quiet_log() -> None:
    """No log on stderr; ``logged`` has what a test wants of it."""
    logger.remove()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("BOSS_BOT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings of a data folder of the test's own; keywords replace what is here."""

    def make(**values: Any) -> Settings:
        defaults = {
            "data_dir": tmp_path / "data",
            "plugins_dir": ROOT / "plugins",
            "allow_private_addresses": True,
        }
        return Settings(**{**defaults, **values})

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """With the real plugins."""
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
async def make_pipeline() -> AsyncIterator[MakePipeline]:
    """Pipelines with their plugins loaded and their folders made, not started; what
    they started is stopped in the end."""
    made: list[Pipeline] = []

    def make(settings: Settings) -> Pipeline:
        plugins = Plugins(settings)
        plugins.load()
        pipeline = Pipeline(settings, plugins)
        bossbot.prepare_data(pipeline.settings.data_dir)
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        await pipeline.stop()


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
    """Where media.py keeps what it made, for the whole run."""
    return tmp_path_factory.mktemp("media")


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
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(**(env or {})),
            cwd=cwd or self.path,
            input=text_in,
            capture_output=True,
            text=True,
            timeout=60,
        )
        with self.path.with_name("output.txt").open("a", encoding="utf-8") as kept:
            kept.write(done.stdout + done.stderr)  # to be searched: see planted.py
        return done

    def plugin(self, name: str, code: str) -> Path:
        path = self.path / "plugins" / f"{name}.py"
        path.write_text(code, "utf-8")
        return path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home"
    path.mkdir()
    shutil.copy(ROOT / "bossbot.py", path)
    shutil.copy(ROOT / "config.toml", path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "plugins", path / "plugins", ignore=ignored)
    return Home(path)


@pytest.fixture
def bare_home(home: Home) -> Home:
    """With the commands that need no network, and nothing else: it starts faster."""
    needed = (
        *PARTS,
        "_child",
        "discord_client",
        "check",
        "get",
        "plugins",
        "setup",
        "which",
    )
    for path in (home.path / "plugins").glob("*.py"):
        if path.stem not in needed:
            path.unlink()
    (home.path / "config.toml").write_text("")  # it has settings of the others
    return home
