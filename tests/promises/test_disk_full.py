"""A full disk: nothing is acknowledged that is not kept, nothing half is left behind."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bossbot_plugins.log import register_log
from conftest import PARTS, MakeApp, MakeSettings, WritePlugin, link_plugins
from discord_support import Stage, link
from loguru import logger

from bossbot import Cause, Job, JobFailed, now

pytest_plugins = ("discord_fixtures",)

FULL = Path("/dev/full")  # every write to it is refused by the kernel: no space left


async def test_link_is_not_acknowledged_when_the_database_is_full(stage: Stage) -> None:
    async with stage.bot() as bot:
        pages = await bot.app.database.one("PRAGMA page_count")
        assert pages
        await bot.app.database.all(f"PRAGMA max_page_count = {pages[0]}")
        for said in range(200):  # what is left of the pages takes a few
            kept = len(await bot.app.queue.list())
            await stage.says(f"$download {link('fail=gone')}")
            await stage.fake.wait_for(lambda: len(stage.said()) > said)  # noqa: B023
            if "disk is full" in stage.said()[-1].content:
                assert len(await bot.app.queue.list()) == kept
                return
    pytest.fail("the database was never full")


ENGINE = """
from bossbot import Engine, hookimpl

def download(request, report):
    (request.folder / "half.mp4").write_bytes(b"half")
    with open("/dev/full", "wb") as file:
        file.write(b"the other half")

@hookimpl
def register_engines():
    return [Engine("toy", lambda: "1", lambda: None, lambda url: True, download)]
"""


async def test_download_that_fills_the_disk_fails_with_that_word(
    make_settings: MakeSettings,
    make_app: MakeApp,
    write_plugin: WritePlugin,
) -> None:
    folder = link_plugins(write_plugin("toy", ENGINE).parent, *PARTS)
    app = make_app(make_settings(plugins_dir=folder))
    job = Job("0123456789", "https://a.example/", "", "toy", 0, 0, 0, "")
    job.created_at = now()
    with pytest.raises(JobFailed) as failed:
        await app.worker.fetch(job)
    assert failed.value.cause is Cause.DISK_FULL
    assert "disk is full" in str(failed.value)
    app.storage.forget_attempt(job)
    assert not list(app.storage.data.glob("temp/*"))


def test_full_disk_for_the_log_stops_nobody(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings()
    logs = settings.data_dir / "logs"
    logs.mkdir(parents=True)
    (logs / f"boss-bot_{datetime.now(UTC):%Y-%m-%d}.log").symlink_to(FULL)
    register_log(settings, False, sys.stdout)
    try:
        logger.info("on we go")
    finally:
        logger.remove()
    assert "on we go" in capsys.readouterr().out
