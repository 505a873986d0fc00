"""A full disk: nothing is acknowledged that is not kept, nothing half is left behind."""

import logging
import os
import resource
import shutil
import sys
from datetime import datetime
from pathlib import Path

import pytest
from conftest import PARTS, MakeApp, MakeSettings, make_job, our_plugins
from discord_support import Stage, link
from loguru import logger

from bossbot import Cause, JobFailed, set_up_log

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"


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


async def test_download_that_fills_the_disk_fails_with_that_word(
    make_settings: MakeSettings, make_app: MakeApp, tmp_path: Path
) -> None:
    settings = make_settings()
    shutil.copy(PLUGINS / "full_disk.py", settings.plugins_dir)
    app = make_app(settings, our_plugins(*PARTS))
    job = make_job(engine="full disk")
    with pytest.raises(JobFailed) as failed:
        await app.worker.fetch(job, lambda progress: None)
    assert failed.value.cause is Cause.DISK_FULL
    assert "disk is full" in str(failed.value)
    await app.storage.forget_attempt(job)
    assert not list((settings.data_dir / "temp").iterdir())


def test_full_disk_for_the_log_stops_nobody(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, most = make_settings(), 2**20
    logs = settings.data_dir / "logs"
    logs.mkdir(parents=True)
    path = logs / f"boss-bot_{datetime.now():%Y-%m-%d}.log"
    path.touch()
    os.truncate(path, most)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    set_up_log(settings, False, sys.stdout)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        logger.info("on we go")
        assert path.stat().st_size == most
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logger.remove()
        logger.configure(patcher=lambda record: None)
        logging.basicConfig(handlers=[], level=logging.WARNING, force=True)
    assert "on we go" in capsys.readouterr().out
    assert "on we go" in path.read_text()  # once there is room


def test_log_is_not_written_through_a_link(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, other = make_settings(), tmp_path / "other"
    logs = settings.data_dir / "logs"
    logs.mkdir(parents=True)
    other.write_text("as it was")
    (logs / f"boss-bot_{datetime.now():%Y-%m-%d}.log").symlink_to(other)
    set_up_log(settings, False, sys.stdout)
    try:
        logger.info("on we go")
    finally:
        logger.remove()
        logger.configure(patcher=lambda record: None)
        logging.basicConfig(handlers=[], level=logging.WARNING, force=True)
    assert other.read_text() == "as it was"
