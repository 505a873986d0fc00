"""What the tests of processors share: an app, a folder for media, a way through."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bossbot_plugins._bench import JobBench
from conftest import PARTS, our_plugins, spread

import bossbot
from bossbot import App, Job, MediaFile, Progress, Ran, Settings


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[App]:
    """With the ``PROCESSORS`` of a module and the runner, warm for all its tests."""
    folder = tmp_path_factory.mktemp("an 'odd', [one]:;")
    (folder / "own").mkdir()
    values = {"data_dir": folder / "data", "plugins_dir": folder / "own"}
    ours = our_plugins(*PARTS, *request.module.PROCESSORS)
    app = App(Settings(**spread(values)), ours)
    app.plugins.load()
    bossbot.prepare_data(app.settings.data_dir)
    run = app.runner.run

    async def run_at_once(*how: Any, background: bool = False) -> Ran:
        """Encoders give way to all that runs here, and so to other tests."""
        return await run(*how[:3])

    app.runner.run = run_at_once  # type: ignore[method-assign]
    yield app
    await app.stop()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture
def processed(app: App) -> Callable[..., Any]:
    """Gives what the processors make of the files of a job in a folder of its own."""

    async def processed(
        job: Job,
        folder: Path,
        paths: Sequence[Path],
        on_progress: Callable[[Progress], None] = lambda progress: None,
        note: str = "",
    ) -> list[MediaFile]:
        found = [await app.storage.inspect(path, folder) for path in paths]
        files = [replace(file, alt="a cat", note=note) for file in found]
        bench = JobBench(app, job, folder, on_progress)
        made: list[MediaFile] = await app.plugins.fold(
            "process_files", "files", job=job, files=files, bench=bench
        )
        assert not any(one.failures for one in app.plugins.all.values())
        return made

    return processed
