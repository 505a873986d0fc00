"""The fixtures of the tests that talk to the fake Discord: see discord_support.py."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from discord_support import BotProcess, Stage, WarmServer
from fake_discord import FakeDiscord


@pytest.fixture(scope="session")
def warm_server() -> Iterator[WarmServer]:
    server = WarmServer()
    yield server
    server.end()


@pytest.fixture
async def process(stage: Stage) -> AsyncIterator[BotProcess]:
    process = BotProcess(stage)
    yield process
    await process.kill()


@pytest.fixture
async def stage(
    media_folder: Path, tmp_path: Path, warm_server: WarmServer
) -> AsyncIterator[Stage]:
    async with FakeDiscord() as fake:
        stage = Stage(fake, media_folder, tmp_path, warm_server)
        stage.keep_status_messages()
        yield stage
        assert not [request for request in fake.requests if request.kind == "unknown"]
