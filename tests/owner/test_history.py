"""The history: a row for every job that has ended, and one only."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import QUEUEING, SUPPORT_PLUGINS, MakeSettings, make_job, our_plugins
from discord_support import Stage, job_id, link

from bossbot import TERMINAL_STATUSES, App, Cause, Job, Status, now, prepare_data

pytest_plugins = ("discord_fixtures",)

HOUR_S, DAY_S = 3600, 86400

Running = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture
def running(make_settings: MakeSettings) -> Running:
    """A started app on the data folder of the test, which has looked for what its
    history lacks. At the end of the block it stops, and has told every change."""

    @asynccontextmanager
    async def run(*, history: bool = True, **values: Any) -> AsyncIterator[App]:
        settings = make_settings(**values)
        for name in ("nowhere", "idle"):
            shutil.copy(SUPPORT_PLUGINS / f"{name}.py", settings.plugins_dir)
        app = App(settings, our_plugins(*QUEUEING, *["history"] * history))
        app.plugins.load()
        prepare_data(settings.data_dir)
        try:
            await app.start(gateway=False, work=False)
            caught_up = app._lives.get("history")
            if caught_up and not settings.plugins.get("history"):
                await caught_up
            yield app
        finally:
            await app.stop()

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], dict[str, sqlite3.Row]]:
    """The rows of the history by job, of a bot that is not running."""

    def read() -> dict[str, sqlite3.Row]:
        database = sqlite3.connect(tmp_path / "data" / "bossbot.db")
        with contextlib.closing(database):
            database.row_factory = sqlite3.Row
            found = database.execute("SELECT * FROM history").fetchall()
        by_id = {row["id"]: row for row in found}
        assert len(by_id) == len(found)
        return by_id

    return read


Rows = Callable[[], dict[str, sqlite3.Row]]


async def ended(app: App, status: Status, age_s: float = 0, **fields: Any) -> Job:
    """A job that has come to its end."""
    job = make_job(**fields)
    assert await app.queue.add(job) is not None
    if status is Status.CANCELLED:
        cancelled = await app.queue.cancel(job.id)
        assert cancelled
        return cancelled
    claimed = await app.queue.claim("worker", 60)
    assert claimed and claimed.id == job.id
    claimed.status, claimed.finished_at = status, now() - age_s
    claimed.facts = job.facts
    if status is Status.FAILED:
        claimed.cause = Cause.GONE
    assert await app.queue.finish(claimed)
    return claimed


async def test_job_has_a_row_once_it_has_ended(running: Running, rows: Rows) -> None:
    async with running() as app:
        jobs = [await ended(app, status) for status in TERMINAL_STATUSES]
        under_way = make_job()
        await app.queue.add(under_way)
        assert await app.queue.claim("worker", 60)
        await app.queue.add(make_job())
    found = rows()
    assert found.keys() == {job.id for job in jobs}
    for job in jobs:
        row = found[job.id]
        assert (row["status"], row["cause"]) == (job.status, job.cause)
        assert (row["guild_id"], row["channel_id"], row["user_id"]) == (1, 2, 3)
        assert (row["url"], row["created_at"]) == (job.url, job.created_at)
        assert row["finished_at"] == job.finished_at


async def test_row_has_the_posts_and_what_is_known_of_the_link(stage: Stage) -> None:
    stage.add_plugin("history")
    facts = stage.facts("known", title="A title", uploader="someone")
    async with stage.bot():
        asked = await stage.says(f"$download {link(facts, *stage.images(12))}")
        answer = await stage.hears("Done in")
    columns = "title, engine, file_count, total_bytes, channel_id, started_at, posts"
    [row] = stage.database(f"SELECT id, user_id, {columns} FROM history")
    assert row[:5] == (job_id(answer), asked.author.id, "A title", "toy", 12)
    files = [file for message in stage.posted() for file in message.files]
    assert row[5:7] == (sum(len(file.data) for file in files), stage.channel_id)
    assert 0 < row[7] <= now()
    posts = json.loads(row[8])
    posted = {
        message.id: [file.filename for file in message.files]
        for message in stage.posted()
    }
    assert len(posted) == 2
    assert {post["message_id"]: list(post["files"]) for post in posts} == posted
    assert {post["state"] for post in posts} == {"sent"}


async def test_end_that_is_told_twice_is_written_once(
    running: Running, rows: Rows
) -> None:
    async with running() as app:
        job = await ended(app, Status.COMPLETED, facts={"title": "A title"})
        for _ in range(2):
            await app.plugins.call("job_changed", job=job, previous=Status.UPLOADING)
    async with running():  # it looks for what is missing
        pass
    assert [(row["id"], row["title"]) for row in rows().values()] == [
        (job.id, "A title")
    ]


async def test_jobs_that_ended_unwritten_are_added_at_the_next_start(
    running: Running, rows: Rows
) -> None:
    async with running() as app:
        written = await ended(app, Status.COMPLETED, age_s=2 * HOUR_S)
    async with running(disabled_plugins=["history"]) as app:
        older = await ended(app, Status.FAILED, age_s=3 * HOUR_S)
        newer = await ended(app, Status.COMPLETED, facts={"title": "A title"})
        cancelled = await ended(app, Status.CANCELLED)
        await app.queue.add(make_job())
    assert rows().keys() == {written.id}
    async with running():
        pass
    found = rows()
    assert found.keys() == {written.id, older.id, newer.id, cancelled.id}
    assert found[newer.id]["title"] == "A title"
    assert found[older.id]["cause"] == Cause.GONE


async def test_bot_without_the_history_leaves_its_table(
    running: Running, rows: Rows
) -> None:
    async with running() as app:
        first = await ended(app, Status.COMPLETED)
    async with running(history=False) as app:
        assert "history" not in app.plugins.all
    assert rows().keys() == {first.id}
    async with running() as app:
        assert not app.plugins.all["history"].off
        second = await ended(app, Status.FAILED)
    assert rows().keys() == {first.id, second.id}


async def test_old_rows_go_and_stay_away(running: Running, rows: Rows) -> None:
    async with running() as app:
        job = await ended(app, Status.COMPLETED, 3 * DAY_S, file_count=2, total_bytes=9)
        for _ in range(2):
            await app.plugins.call("job_changed", job=job, previous=None)
        await ended(app, Status.COMPLETED, 3 * DAY_S, file_count=1, total_bytes=1)
        young = await ended(app, Status.FAILED, DAY_S, guild_id=5)
        await app.queue.add(make_job())
    assert len(rows()) == 3
    for _ in range(2):  # what went does not come back from the queue
        async with running(history__keep_days=2):
            async with asyncio.timeout(60):
                while len(rows()) > 1:
                    await asyncio.sleep(0.01)
        assert rows().keys() == {young.id}
