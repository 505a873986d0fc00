"""The queue in SQLite: order, limits, claims, and what survives."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins import sqlite_database
from bossbot_plugins.sqlite_database import MIGRATIONS, SQLite
from conftest import ROOT, MakeSettings
from discord_support import Stage, link

import bossbot
from bossbot import (
    Cause,
    Job,
    Priority,
    Queue,
    QueueFull,
    StartError,
    Status,
)

pytest_plugins = ("discord_fixtures",)

LEASE_S = 60.0
HIGH, LOW = Priority.HIGH, Priority.LOW

Open = Callable[..., Awaitable[Queue]]


@pytest.fixture
async def open_queue(make_settings: MakeSettings) -> AsyncIterator[Open]:
    """Opens the queue, with other settings if wanted; what was open before is closed,
    as at a restart."""
    opened: list[SQLite] = []

    async def open_queue(**values: Any) -> Queue:
        while opened:
            await opened.pop().close()
        settings = make_settings(**values)
        bossbot.prepare_data(settings.data_dir)
        db = SQLite(settings.data_dir)
        opened.append(db)
        await db.open()
        module = bossbot.import_plugin(ROOT / "plugins" / "sqlite_queue.py")
        queue: Queue = module.SQLiteQueue(db, settings)
        return queue

    yield open_queue
    while opened:
        await opened.pop().close()


@pytest.fixture
async def queue(open_queue: Open) -> Queue:
    return await open_queue()


numbers = count(1)


def a_job(guild: int = 1, priority: Priority = Priority.NORMAL, key: str = "") -> Job:
    number = next(numbers)
    return Job(
        id=f"{number:010x}",
        url=f"https://a.example/{number}",
        platform="",
        engine="e",
        guild_id=guild,
        channel_id=2,
        user_id=3,
        request_key=key or f"request:{number}",
        priority=priority,
        created_at=bossbot.now(),
    )


async def added(queue: Queue, *jobs: Job) -> list[str]:
    for job in jobs:
        assert await queue.add(job)
    return [job.id for job in jobs]


async def claim(queue: Queue) -> Job:
    job = await queue.claim("me", LEASE_S)
    assert job is not None
    return job


async def claim_all(queue: Queue) -> list[str]:
    ids = []
    while job := await queue.claim("me", LEASE_S):
        ids.append(job.id)
    return ids


async def status(queue: Queue, job: Job) -> Status:
    stored = await queue.get(job.id)
    assert stored is not None
    return stored.status


def on_disk(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What another process would read: committed rows alone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


# Order and limits


async def test_highest_priority_is_claimed_first_then_the_oldest(queue: Queue) -> None:
    jobs = [a_job(guild, p) for guild, p in enumerate((LOW, LOW, HIGH, HIGH), 1)]
    low, low2, high, high2 = await added(queue, *jobs)
    (normal,) = await added(queue, a_job(9))
    assert await claim_all(queue) == [high, high2, normal, low, low2]


async def test_guild_with_the_fewest_running_comes_before_the_oldest(
    queue: Queue,
) -> None:
    a1, a2, a3, b1 = await added(queue, a_job(1), a_job(1), a_job(1), a_job(2))
    assert await claim_all(queue) == [a1, b1, a2, a3]


async def test_no_more_run_than_allowed_in_all_and_in_a_guild(
    open_queue: Open,
) -> None:
    queue = await open_queue(max_concurrent_downloads=4, max_concurrent_per_guild=2)
    a1, a2, a3, b1 = await added(queue, a_job(1), a_job(1), a_job(1), a_job(2))
    c1, d1 = await added(queue, a_job(3), a_job(4))
    assert await claim_all(queue) == [a1, b1, c1, d1]
    job = await queue.get(b1)
    assert job is not None
    job.status = Status.COMPLETED
    assert await queue.finish(job)
    assert await claim_all(queue) == [a2]
    for running in (c1, d1):
        await queue.cancel(running)
    assert await claim_all(queue) == []  # guild 1 has its two
    assert a3 in [job.id for job in await queue.list(1, [Status.QUEUED])]


async def test_full_guild_does_not_hold_up_another(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_per_guild=1)
    a1, _, b1 = await added(queue, a_job(1, HIGH), a_job(1, HIGH), a_job(2, LOW))
    assert await claim_all(queue) == [a1, b1]


async def test_upload_holds_no_slot(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_downloads=1)
    _, second = await added(queue, a_job(), a_job())
    job = await claim(queue)
    job.status = Status.PROCESSING
    await queue.save(job, LEASE_S)
    assert await claim_all(queue) == []
    job.status = Status.UPLOADING
    await queue.save(job, LEASE_S)
    assert await claim_all(queue) == [second]


async def test_full_queue_takes_no_more_however_many_come_at_once(
    open_queue: Open,
) -> None:
    queue = await open_queue(max_queue_size=10)
    results = await asyncio.gather(
        *(queue.add(a_job()) for _ in range(30)), return_exceptions=True
    )
    assert results.count(True) == 10
    refusals = [result for result in results if isinstance(result, QueueFull)]
    assert len(refusals) == 20 and "10 links" in str(refusals[0])
    assert len(await queue.list(1)) == 10
    assert await queue.add(a_job(2))  # another guild has room
    await claim(queue)
    assert await queue.add(a_job(1))  # what runs does not wait


async def test_one_request_is_taken_once(open_queue: Open) -> None:
    queue = await open_queue(max_queue_size=1)
    results = await asyncio.gather(
        *(queue.add(a_job(key="message:0")) for _ in range(5)), return_exceptions=True
    )
    assert results == [True, False, False, False, False]
    job = await claim(queue)
    job.status = Status.COMPLETED
    await queue.finish(job)
    assert await queue.add(a_job(key="message:0")) is False
    assert len(await queue.list()) == 1


async def test_everything_of_a_job_is_stored(queue: Queue) -> None:
    job = a_job(guild=2**63 - 1, priority=HIGH)
    job.title, job.url = "Ünïcode \U0001f600", "https://a.example/?q='; DROP TABLE jobs"
    await queue.add(job)
    assert await queue.get(job.id) == job
    claimed = await claim(queue)
    claimed.cause, claimed.error, claimed.detail = Cause.AGE, "sentence", "words"
    claimed.status, claimed.finished_at = Status.FAILED, 5.5
    await queue.finish(claimed)
    assert await queue.get(job.id) == claimed
    assert await queue.get("nobody") is None


# Position, move, cancel


async def test_position_counts_the_waiting_of_the_guild(queue: Queue) -> None:
    other, first, low, high = await added(
        queue, a_job(2), a_job(1), a_job(1, LOW), a_job(1, HIGH)
    )
    positions = [await queue.position(job) for job in (other, high, first, low)]
    assert positions == [1, 1, 2, 3]
    assert (await claim(queue)).id == high
    assert [await queue.position(job) for job in (high, first, low)] == [0, 1, 2]
    assert await queue.position("nobody") == 0


async def test_moved_job_is_claimed_earlier(queue: Queue) -> None:
    first, second, third = await added(queue, a_job(), a_job(), a_job())
    assert await queue.move(third, HIGH)
    assert await queue.move(first, LOW)
    assert [await queue.position(j) for j in (third, second, first)] == [1, 2, 3]
    assert await claim_all(queue) == [third, second, first]
    assert not await queue.move(first, HIGH)  # it runs
    assert not await queue.move("nobody", HIGH)


async def test_waiting_job_can_be_cancelled_and_never_runs(queue: Queue) -> None:
    job = a_job()
    await queue.add(job)
    cancelled = await queue.cancel(job.id)
    assert cancelled is not None and cancelled.status is Status.CANCELLED
    assert cancelled.cause is Cause.CANCELLED and cancelled.finished_at
    assert await claim_all(queue) == []
    assert await queue.cancel(job.id) is None


@pytest.mark.parametrize("phase", [Status.DOWNLOADING, Status.PROCESSING])
async def test_running_job_can_be_cancelled_and_its_attempt_changes_nothing(
    queue: Queue, phase: Status
) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    job.status = phase
    await queue.save(job, LEASE_S)
    assert await queue.cancel(job.id)
    job.status = Status.UPLOADING
    assert not await queue.save(job, LEASE_S)
    assert await status(queue, job) is Status.CANCELLED


@pytest.mark.parametrize("phase", [Status.UPLOADING, Status.COMPLETED, Status.FAILED])
async def test_job_that_is_uploading_or_over_cannot_be_cancelled(
    queue: Queue, phase: Status
) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    job.status = phase
    await queue.save(job, LEASE_S)
    assert await queue.cancel(job.id) is None
    assert await status(queue, job) is phase


async def test_list_has_jobs_in_order_by_guild_and_status(queue: Queue) -> None:
    a, b, c = await added(queue, a_job(1), a_job(2), a_job(1))
    assert (await claim(queue)).id == a
    assert [job.id for job in await queue.list()] == [a, b, c]
    assert [job.id for job in await queue.list(1)] == [a, c]
    assert [job.id for job in await queue.list(1, [Status.QUEUED])] == [c]
    running = await queue.list(statuses=[Status.DOWNLOADING, Status.UPLOADING])
    assert [job.id for job in running] == [a]


async def test_claims_holder_does_not_undo_what_others_set(queue: Queue) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    await queue.patch(job.id, status_message_id=77)
    job.status = Status.PROCESSING
    assert await queue.save(job, LEASE_S)
    stored = await queue.get(job.id)
    assert stored is not None and stored.status_message_id == 77


# Claims


async def test_older_claim_changes_nothing(queue: Queue) -> None:
    await queue.add(a_job())
    old = await claim(queue)
    await queue.recover()
    new = await claim(queue)
    assert new.id == old.id and new.fence > old.fence
    stored = await queue.get(new.id)
    old.status, old.title = Status.COMPLETED, "old"
    assert not await queue.save(old, LEASE_S)
    assert not await queue.finish(old)
    assert not await queue.release(old)
    assert await queue.get(new.id) == stored


async def test_no_job_is_claimed_twice(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_downloads=100, max_concurrent_per_guild=100)
    ids = await added(queue, *(a_job(n % 3) for n in range(20)))
    claims = await asyncio.gather(*(queue.claim("me", LEASE_S) for _ in range(40)))
    assert sorted(job.id for job in claims if job) == sorted(ids)


async def test_released_job_waits_its_time_and_runs_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    assert await queue.release(job)
    job = await claim(queue)
    assert (job.attempts, job.claim_number) == (2, 2)
    assert await queue.release(job, delay_s=30)
    assert await status(queue, job) is Status.QUEUED
    assert await claim_all(queue) == []
    set_clock(monkeypatch, 29)
    assert await claim_all(queue) == []
    set_clock(monkeypatch, 31)
    assert await claim_all(queue) == [job.id]


def set_clock(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    """What the queue's next process would see when the clock is set."""
    module = sys.modules["bossbot_plugins.sqlite_queue"]
    monkeypatch.setattr(module, "now", lambda: time.time() + by_s)


@pytest.mark.parametrize("by_s", [-86400, 86400])
async def test_clock_set_by_a_day_loses_no_job(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    await added(queue, a_job(), a_job())
    delayed = await claim(queue)
    await queue.release(delayed, delay_s=30)
    set_clock(monkeypatch, by_s)
    assert len(await claim_all(queue)) == 2


# What survives


async def test_job_that_ran_when_the_bot_died_runs_again(open_queue: Open) -> None:
    queue = await open_queue()
    waiting, running, uploading, done = (a_job(guild) for guild in range(1, 5))
    await added(queue, running, uploading, done)
    for _ in range(3):
        job = await claim(queue)
        if job.id == uploading.id:
            job.status = Status.UPLOADING
        elif job.id == done.id:
            job.status = Status.COMPLETED
        await queue.save(job, LEASE_S)
    await queue.add(waiting)
    for crashes in (1, 2, 3):
        queue = await open_queue()
        await queue.recover()
        stored = await queue.get(running.id)
        assert stored is not None
        assert (stored.status, stored.crashes) == (Status.QUEUED, crashes)
        assert await claim_all(queue) == [running.id, *([waiting.id] * (crashes == 1))]
        if crashes == 1:
            await queue.cancel(waiting.id)
    assert await status(queue, uploading) is Status.UPLOADING
    assert await status(queue, done) is Status.COMPLETED


ADD = """
import asyncio, sys
import bossbot
from pathlib import Path

async def main():
    settings = bossbot.Settings(data_dir=Path(sys.argv[1]))
    bossbot.prepare_data(settings.data_dir)
    plugins = Path(sys.argv[2])
    db = bossbot.import_plugin(plugins / "database.py").SQLite(settings.data_dir)
    await db.open()
    module = bossbot.import_plugin(plugins / "sqlite_queue.py")
    queue = module.SQLiteQueue(db, settings)
    for number in range(1000):
        job = bossbot.Job(f"{number}", "https://a", "", "e", number, 2, 3, f"{number}")
        if await queue.add(job):
            print(number, flush=True)

asyncio.run(main())
"""


def test_every_acknowledged_job_survives_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    last = -1
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", ADD, str(data), str(ROOT / "plugins")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(random.randint(1, 20)):
                last = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            last = max([last, *map(int, process.stdout.read().split())])
        kept = on_disk(data / "bossbot.db", "SELECT id FROM jobs")
        assert {str(n) for n in range(last + 1)} <= {row[0] for row in kept}
        assert on_disk(data / "bossbot.db", "PRAGMA integrity_check") == [("ok",)]


OWN = """
import asyncio, sys, bossbot
from pathlib import Path

module = bossbot.import_plugin(Path("plugins/database.py"))
db = module.SQLite(Path(sys.argv[1]))
asyncio.run(db.open())
"""


def test_two_processes_cannot_own_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    code = OWN + "print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", code, str(data)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout and other.stdout.readline()
        db = SQLite(data)
        with pytest.raises(StartError) as caught:
            asyncio.run(db.open())
        assert f"process {other.pid}" in str(caught.value)
        assert str(data) in str(caught.value)
        assert "data_dir" in str(caught.value)
        other.kill()

    async def again() -> None:
        await db.open()
        await db.close()

    asyncio.run(again())  # what a killed process held is free


# The file


async def test_database_of_a_newer_bot_is_left_alone(open_queue: Open) -> None:
    queue: Any = await open_queue()
    path = queue.db.path
    await queue.add(a_job())
    await queue.db.all(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(StartError, match="newer Boss-Bot") as caught:
        await open_queue()
    assert str(path) in str(caught.value) and "Update" in str(caught.value)
    assert on_disk(path, "SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize("damage", ["no database at all", "torn page"])
async def test_damaged_database_is_kept_aside(open_queue: Open, damage: str) -> None:
    queue: Any = await open_queue(max_queue_size=1000)
    path: Path = queue.db.path
    async with queue.db.transaction() as connection:
        for number in range(2000):
            await connection.execute(
                "INSERT INTO facts VALUES (?, ?)", (str(number), "x" * 100)
            )
    await queue.db.close()
    content = path.read_bytes()
    if damage == "torn page":
        content = content[:8192] + random.Random(1).randbytes(65536) + content[73728:]
    else:
        content = b"no database" * 1000
    path.write_bytes(content)
    with pytest.raises(StartError, match="damaged") as caught:
        await open_queue()
    (aside,) = [p for p in path.parent.glob("*damaged*") if p.suffix != ".db-wal"]
    assert aside.name in str(caught.value) and aside.read_bytes() == content
    assert "backup" in str(caught.value)
    queue = await open_queue()  # the next start has an empty queue
    assert await queue.list() == []
    assert aside.read_bytes() == content


async def test_database_that_cannot_be_opened_ends_the_start(
    make_settings: MakeSettings,
) -> None:
    path = make_settings().data_dir / "bossbot.db"
    path.mkdir(parents=True)
    with pytest.raises(StartError) as caught:
        await SQLite(path.parent).open()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["PRAGMA user_version=999", "damaged", "folder"])
def test_process_ends_when_its_database_cannot_be_used(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "bossbot.db"
    if content == "folder":
        path.mkdir()
    elif content == "damaged":
        path.write_text(content * 1000)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(content)
    done = subprocess.run(
        [sys.executable, "-c", OWN, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1 and "bossbot.StartError" in done.stderr


async def test_older_database_is_migrated_with_what_it_holds(
    open_queue: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Any = await open_queue()
    (kept,) = await added(queue, a_job())
    newer = (*MIGRATIONS, "CREATE TABLE more (x); INSERT INTO more VALUES (1)")
    monkeypatch.setattr(database, "MIGRATIONS", newer)
    for _ in range(2):  # once, not at every start
        queue = await open_queue()
        assert [job.id for job in await queue.list()] == [kept]
        assert [row[0] for row in await queue.db.all("SELECT x FROM more")] == [1]
        version = await queue.db.one("PRAGMA user_version")
        assert version is not None and version[0] == len(newer)


async def test_failed_migration_leaves_the_database_as_it_was(
    open_queue: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue: Any = await open_queue()
    (kept,) = await added(queue, a_job())
    broken = (*MIGRATIONS, "CREATE TABLE more (x); NONSENSE")
    monkeypatch.setattr(database, "MIGRATIONS", broken)
    with pytest.raises(StartError):
        await open_queue()
    monkeypatch.undo()
    queue = await open_queue()
    assert [job.id for job in await queue.list()] == [kept]
    assert await queue.db.all("SELECT 1 FROM sqlite_master WHERE name = 'more'") == []


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
print("for so long", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


@contextlib.contextmanager
def locked_by_another_process(
    path: Path, at_least_s: float = 0
) -> Iterator["subprocess.Popen[str]"]:
    """The process holds the database until it reads a line, but no less than that
    time, after which it writes one."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path), str(at_least_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stdout.readline()
        yield process


async def longest_pause_s(turns: int) -> float:
    """Of the event loop, over some turns."""
    longest = 0.0
    for _ in range(turns):
        before = time.monotonic()
        await asyncio.sleep(0.01)
        longest = max(longest, time.monotonic() - before)
    return longest


async def test_locked_database_is_waited_for_without_blocking_the_loop(
    queue: Queue,
) -> None:
    path = queue.db.path  # type: ignore[attr-defined]
    with locked_by_another_process(path) as other:
        adding = [asyncio.create_task(queue.add(a_job())) for _ in range(5)]
        assert await longest_pause_s(30) < 0.2
        assert not any(task.done() for task in adding)
        await asyncio.to_thread(other.communicate, "\n")
        assert await asyncio.gather(*adding) == [True] * 5
    assert on_disk(path, "SELECT count(*) FROM jobs") == [(5,)]


async def test_link_pasted_while_the_database_is_locked_for_10_s_is_taken_after_it(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        path = bot.app.database.path
        with locked_by_another_process(path, 10) as other:
            assert other.stdout
            held = asyncio.create_task(asyncio.to_thread(other.stdout.readline))
            await stage.says(f"$download {link(stage.image())}")
            longest_s = 0.0
            while not held.done():
                longest_s = max(longest_s, await longest_pause_s(10))
            assert longest_s < 1
            assert stage.said() == [] == on_disk(path, "SELECT * FROM jobs")
            await asyncio.to_thread(other.communicate, "\n")
        [message] = await stage.gets(1)
        assert message.files[0].data == stage.bytes_of(stage.image())


async def test_task_cancelled_in_a_transaction_leaves_none_open(queue: Queue) -> None:
    path = queue.db.path  # type: ignore[attr-defined]
    with locked_by_another_process(path) as other:
        adding = asyncio.create_task(queue.add(a_job()))
        await longest_pause_s(10)
        adding.cancel()
        await asyncio.to_thread(other.communicate, "\n")
        with pytest.raises(asyncio.CancelledError):
            await adding
    assert await queue.add(a_job())
    assert on_disk(path, "SELECT count(*) FROM jobs") == [(1,)]


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_task_cancelled_at_any_moment_adds_whole_or_not(
    queue: Queue, turns: int
) -> None:
    path = queue.db.path  # type: ignore[attr-defined]
    first, second = a_job(), a_job()
    adding = asyncio.create_task(queue.add(first))
    for _ in range(turns):
        await asyncio.sleep(0)
    adding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await adding
    assert await queue.add(second)
    ids = {row[0] for row in on_disk(path, "SELECT id FROM jobs")}
    assert second.id in ids <= {first.id, second.id}
    assert ids == {job.id for job in await queue.list()}


async def test_failed_transaction_is_undone_whole(queue: Queue) -> None:
    db: SQLite = queue.db  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as connection:
            await connection.execute("INSERT INTO facts VALUES ('a', 'b')")
            raise ZeroDivisionError
    assert await db.fact("a") == ""
    assert await db.fact("a", "c") == "c"
    assert await db.fact("a", "d") == "d"
    assert on_disk(db.path, "SELECT * FROM facts") == [("a", "d")]


# Changes


async def test_changes_tell_of_every_change(queue: Queue) -> None:
    changes = aiter(queue.changes())
    assert await anext(changes) == ""
    job = a_job()
    await queue.add(job)
    assert await anext(changes) == job.id
    claimed = await claim(queue)
    claimed.status = Status.PROCESSING
    await queue.save(claimed, LEASE_S)
    assert await anext(changes) == job.id
    await queue.cancel(job.id)
    assert await anext(changes) == job.id
    assert await anext(changes) == ""  # now and then, for what is due


async def test_every_listener_hears_of_changes(queue: Queue) -> None:
    listeners = [aiter(queue.changes()) for _ in range(2)]
    assert [await anext(one) for one in listeners] == ["", ""]
    job = a_job()
    await queue.add(job)
    assert [await anext(one) for one in listeners] == [job.id, job.id]
