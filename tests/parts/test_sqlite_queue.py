"""The queue in SQLite: order, limits, claims, and what survives."""

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bossbot_plugins._rows import job_of, row_of
from conftest import ROOT, MakeApp, MakeSettings, make_job, our_plugins
from discord_support import Stage, link, module
from sqlite_support import (
    Disk,
    locked_by_another_process,
    longest_pause_s,
    on_disk,
)

import bossbot
from bossbot import (
    ATTEMPT_STATUSES,
    App,
    Cause,
    Change,
    Job,
    Post,
    Priority,
    Progress,
    Queue,
    QueueFull,
    Refused,
    Status,
)

pytest_plugins = ("discord_fixtures",)

LEASE_S = 60.0
HIGH, LOW = Priority.HIGH, Priority.LOW
P = list(Priority)

Open = Callable[..., Awaitable[Queue]]
T = TypeVar("T")


@pytest.fixture
async def open_queue(
    make_settings: MakeSettings, make_app: MakeApp, tmp_path: Path
) -> AsyncIterator[Open]:
    """Opens the queue, with other settings if wanted; what was open before is closed,
    as at a restart."""
    ours = our_plugins("sqlite_database", "sqlite_queue")
    opened: list[App] = []

    async def open_queue(**values: Any) -> Queue:
        while opened:
            await opened.pop().stop()
        app = make_app(make_settings(**values), ours)
        opened.append(app)
        await app.database.start()
        await app.queue.start()
        return app.queue

    yield open_queue
    while opened:  # in the reverse order: the database last
        await opened.pop().stop()


@pytest.fixture
async def queue(open_queue: Open) -> Queue:
    return await open_queue()


def database_of(queue: Queue) -> Path:
    path: Path = queue.app.database.path  # type: ignore[attr-defined]
    return path


members = count(10)


def a_job(guild: int = 1, priority: Priority = Priority.NORMAL, **fields: Any) -> Job:
    """A job of a member who has no other."""
    fields = {"user_id": next(members), **fields}
    return make_job(guild_id=guild, priority=priority, **fields)


async def added(queue: Queue, *jobs: Job) -> list[str]:
    for job in jobs:
        assert await queue.add(job) is not None
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


async def stored(queue: Queue, job: Job) -> Job:
    found = await queue.get(job.id)
    assert found is not None
    return found


async def status(queue: Queue, job: Job) -> Status:
    return (await stored(queue, job)).status


async def test_whether_a_job_waits_is_known_without_asking(
    open_queue: Open,
) -> None:
    queue = await open_queue()
    known = [queue.waits()]
    first, second, third = a_job(), a_job(), a_job()
    await added(queue, first, second, third)
    known.append(queue.waits())
    mine = await claim(queue)
    await queue.move(second.id, Priority.HIGH)
    await queue.cancel(second.id)
    known.append(queue.waits())
    last = await claim(queue)
    known.append(queue.waits())
    assert await queue.release(mine)
    known.append(queue.waits())
    await claim(queue)
    last.status = Status.COMPLETED
    await queue.finish(last)
    known.append(queue.waits())
    assert known == [False, True, True, False, True, False]
    queue = await open_queue()
    assert not queue.waits()
    await queue.recover("me", LEASE_S)
    assert queue.waits()
    await claim(queue)
    await added(queue, a_job())
    assert (await open_queue()).waits()


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


async def test_member_with_a_share_running_is_passed_over(queue: Queue) -> None:
    """Wherever it runs: three slow pages must not hold up a server, nor five the bot."""
    a1, a2, a3, b1 = await added(
        queue, *(a_job(1, HIGH, user_id=3) for _ in range(3)), a_job(1, LOW, user_id=4)
    )
    (a4,) = await added(queue, a_job(2, HIGH, user_id=3))
    assert await claim_all(queue) == [a1, a4, b1]
    job = await stored(queue, make_job(id=a4))
    job.status = Status.UPLOADING
    await queue.save(job, LEASE_S)
    assert await claim_all(queue) == [a2]
    await queue.cancel(a1)
    assert await claim_all(queue) == [a3]


async def test_small_links_go_past_what_is_made_to_fit(open_queue: Open) -> None:
    """Even those of the same member, until he has his share of that, too."""
    one = {"max_concurrent_downloads": 1, "max_concurrent_per_guild": 1}
    queue = await open_queue(**one, max_concurrent_per_user=2)
    ids = await added(queue, *(a_job(user_id=3) for _ in range(4)))
    for number, claimed in enumerate(ids[:2]):
        assert await claim_all(queue) == [claimed], number
        job = await stored(queue, make_job(id=claimed))
        job.status = Status.PROCESSING
        await queue.save(job, LEASE_S)
    assert await claim_all(queue) == []
    (other,) = await added(queue, a_job(user_id=4))
    assert await claim_all(queue) == [other]


async def test_share_of_what_is_downloaded_is_apart_from_that_of_the_rest(
    open_queue: Open,
) -> None:
    queue = await open_queue(max_concurrent_per_user=2)
    ids = await added(queue, *(a_job(user_id=3) for _ in range(4)))
    job = await claim(queue)
    job.status = Status.PROCESSING
    await queue.save(job, LEASE_S)
    assert await claim_all(queue) == ids[1:3]


async def test_share_of_a_member_can_be_set(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_per_user=3)
    ids = await added(queue, *(a_job(user_id=3) for _ in range(4)))
    assert await claim_all(queue) == ids[:3]


async def test_link_over_the_members_share_is_not_said_to_start(queue: Queue) -> None:
    assert [await queue.add(a_job(user_id=3)) for _ in range(2)] == [0, 0]
    assert await queue.add(a_job(user_id=3)) == 3
    assert await queue.add(a_job(2, user_id=3)) == 1


@pytest.mark.parametrize("seed", range(2))
async def test_claims_come_in_the_order_that_the_contract_says(
    open_queue: Open, seed: int
) -> None:
    queue = await open_queue(
        max_concurrent_downloads=7, max_concurrent_per_guild=3, max_queue_size=500
    )
    chance = random.Random(seed)

    def next_by_the_contract(jobs: list[Job]) -> str | None:
        running = Counter(j.guild_id for j in jobs if j.status in ATTEMPT_STATUSES)
        busy = Counter(j.user_id for j in jobs if j.status in ATTEMPT_STATUSES)
        waiting = [
            (-job.priority, running[job.guild_id], number, job.id)
            for number, job in enumerate(jobs)
            if job.status is Status.QUEUED
            and not job.not_before
            and running[job.guild_id] < 3
            and busy[job.user_id] < 2
        ]
        return min(waiting)[-1] if waiting and running.total() < 7 else None

    for _ in range(100):
        step = chance.choice(["add", "add", "claim", "claim", "end", "move", "cancel"])
        jobs = await queue.list(statuses=[Status.QUEUED, *ATTEMPT_STATUSES])
        if step == "add":
            member = chance.choice([1, 1, 1, 2, 3, 4, 5, 6])
            guild = chance.choice([1, 1, 1, 2, 3, 4])
            await queue.add(a_job(guild, chance.choice(P), user_id=member))
        elif step == "claim":
            expected = next_by_the_contract(jobs)
            job = await queue.claim("me", LEASE_S)
            assert (job and job.id) == expected
        elif jobs:
            job = chance.choice(jobs)
            if step == "move":
                await queue.move(job.id, chance.choice(P))
            elif step == "cancel":
                await queue.cancel(job.id)
            elif job.status is Status.DOWNLOADING:
                job.status = chance.choice([Status.UPLOADING, Status.FAILED])
                if chance.random() < 0.5:
                    await queue.release(job, delay_s=99)
                elif job.status is Status.UPLOADING:
                    await queue.save(job, LEASE_S)
                else:
                    await queue.finish(job)


async def test_no_work_grows_with_what_has_ended_or_waits(queue: Queue) -> None:
    database = queue.app.database
    await queue.add(old := a_job())
    job = await claim(queue)
    job.status = Status.FAILED
    await queue.finish(job)
    row = row_of(await stored(queue, old))
    names = ", ".join(f":{name}" for name in row)
    async with database.transaction() as connection:
        rows = []
        for number in range(8000):  # half of them wait, in 1,000 guilds
            new = {"id": f"{number}", "request_key": number, "guild_id": number // 8}
            new["user_id"] = number // 2
            if number % 2:
                new |= {"status": "queued", "finished_at": 0, "same": f"{number}"}
            if number % 10 == 9:
                new["joins"] = f"{number - 2}"
            rows.append({**row, **new})
        sql = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({names})"
        await connection.executemany(sql, rows)
    await queue.add(waiting := a_job())
    await queue.add(running := a_job())
    steps: dict[str, int] = {}

    async def count(name: str, work: Awaitable[Any]) -> None:
        """Thousands of steps of SQLite's virtual machine."""
        ticks: list[int] = []
        connection = database.connection  # type: ignore[attr-defined]
        await connection.set_progress_handler(lambda: ticks.append(1), 1000)
        await work
        await connection.set_progress_handler(None, 0)
        steps[name] = len(ticks)

    await count("add", queue.add(a_job()))
    for number in range(3):  # of one, some and all guilds that run something
        await count(f"claim {number}", queue.claim("me", LEASE_S))
    await count("list of a guild", queue.list(1))
    for status in [*ATTEMPT_STATUSES, Status.UPLOADING]:
        await count(f"list of {status}", queue.list(statuses=[status]))
    await count("list since", queue.list(statuses=[Status.FAILED], since=time.time()))
    await count("position", queue.position(waiting.id))
    await count("move", queue.move(waiting.id, HIGH))
    await count("cancel", queue.cancel(running.id))
    await count("add one that joins", queue.add(a_job(same="7995")))
    await count("cancel one that is joined", queue.cancel("7997"))
    await count("recover", queue.recover("me", LEASE_S))
    assert max(steps.values()) <= 5, steps


async def test_upload_holds_no_slot(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_downloads=1)
    _, second = await added(queue, a_job(), a_job())
    job = await claim(queue)
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
    positions = [result for result in results if isinstance(result, int)]
    assert sorted(positions) == [0, 0, 0, 4, 5, 6, 7, 8, 9, 10]
    refusals = [result for result in results if isinstance(result, QueueFull)]
    assert len(refusals) == 20 and "10 links" in str(refusals[0])
    assert len(await queue.list(1)) == 10
    assert await queue.add(a_job(2)) is not None  # another guild has room
    await claim(queue)
    assert await queue.add(a_job(1)) == 10  # what runs does not wait


async def test_one_request_is_taken_once(open_queue: Open) -> None:
    queue = await open_queue(max_queue_size=1)
    jobs = [a_job(request_key="message:0") for _ in range(5)]
    results = await asyncio.gather(*map(queue.add, jobs), return_exceptions=True)
    assert results.count(None) == 4 and 0 in results
    taken = jobs[results.index(0)]
    job = await claim(queue)
    job.status = Status.COMPLETED
    await queue.finish(job)
    assert await queue.add(a_job(request_key="message:0")) is None
    assert [job.id for job in await queue.list()] == [taken.id]


async def test_add_says_the_place_in_the_line_or_0_for_what_starts_at_once(
    open_queue: Open,
) -> None:
    queue = await open_queue(max_concurrent_downloads=3, max_concurrent_per_guild=2)
    assert [await queue.add(a_job(1)) for _ in range(2)] == [0, 0]
    assert await queue.add(a_job(1)) == 3  # the guild's slots are spoken for
    assert await queue.add(a_job(2)) == 1  # the machine's are, too
    await claim_all(queue)
    (waiting,) = await queue.list(1, [Status.QUEUED])
    assert (waiting.position, await queue.position(waiting.id)) == (3, 1)
    assert await queue.add(a_job(1, LOW)) == 2
    assert await queue.add(a_job(1, HIGH)) == 1


async def test_everything_of_a_job_is_stored(queue: Queue) -> None:
    facts = {"title": "Ünïcode \U0001f600"}
    url = "https://a.example/?q=';DROP+TABLE+jobs"
    job = a_job(guild=2**63 - 1, priority=HIGH, facts=facts, url=url)
    await queue.add(job)
    assert await stored(queue, job) == job
    claimed = await claim(queue)
    claimed.cause, claimed.error, claimed.detail = Cause.AGE, "sentence", "words"
    claimed.status, claimed.finished_at = Status.FAILED, 5.5
    await queue.finish(claimed)
    assert await stored(queue, job) == claimed
    assert await queue.get("nobody") is None


A_POST = Post(1, "words \U0001f600", {"b.jpg": "22", "a.jpg": "11"}, "sent", 2**62, 6.5)
# A value for each field, none of them the default.
FULL: dict[str, Any] = {
    "id": "0123456789",
    "url": "https://a.example/1",
    "platform": "tube",
    "guild_id": 1,
    "channel_id": 2,
    "user_id": 3,
    "request_key": "message:4",
    "message_id": 4,
    "options": {"quality": 720, "tags": ["a", None, 1.5]},
    "guild_settings": {"stats": {"shown": True}},
    "limit_bytes": 2**40,
    "same": "link",
    "created_at": 1.25,
    "status": Status.UPLOADING,
    "priority": HIGH,
    "position": 5,
    "joins": "9876543210",
    "status_message_id": 6,
    "worker": "me",
    "claim_number": 7,
    "lease_until": 2.25,
    "not_before": 3.25,
    "attempts": 8,
    "crashes": 2,
    "started_at": 4.25,
    "engine": "e",
    "facts": {"title": "Ti'\"tle", "adult": True, "text": "\n\0"},
    "posts": [A_POST, Post(2, "")],
    "sources": [["0001", "aa"]],
    "folder": "a/0123456789",
    "file_count": 9,
    "total_bytes": 2**41,
    "cause": Cause.GONE,
    "error": "sentence",
    "detail": "words",
    "finished_at": 5.25,
}


async def test_job_with_every_field_set_survives_its_row(queue: Queue) -> None:
    job = Job(**FULL)
    bare = Job(id="", url="")
    fields = {one.name: getattr(job, one.name) for one in dataclasses.fields(Job)}
    assert fields == FULL
    assert not [name for name in FULL if getattr(bare, name) == FULL[name]]
    assert job_of(row_of(job)) == job
    assert job_of({**row_of(job), "a newer one": 1}) == job
    await queue.add(job)
    job.position = (await stored(queue, job)).position  # which is the queue's to say
    assert await stored(queue, job) == job
    assert list((await stored(queue, job)).posts[0].files) == ["b.jpg", "a.jpg"]


@pytest.mark.parametrize("name", ["error", "detail", "engine"])
async def test_half_a_character_does_not_keep_a_job_from_ending(
    queue: Queue, name: str
) -> None:
    await queue.add(a_job(facts={"text": "\ud83d"}))
    job = await claim(queue)
    setattr(job, name, "from a file's name: \udc80")
    job.status = Status.FAILED
    assert await queue.finish(job)
    assert getattr(await stored(queue, job), name) == "from a file's name: ?"
    assert await queue.add(a_job(url="https://a.example/\ud83d")) == 0


async def test_job_that_cannot_be_stored_is_refused_in_words(queue: Queue) -> None:
    await queue.app.database.all("DROP TABLE jobs")
    with pytest.raises(Refused, match="disk is full or busy"):
        await queue.add(a_job())
    await queue.app.database.stop()
    with pytest.raises(Refused, match="disk is full or busy"):
        await queue.add(a_job())


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
    await queue.set_status_message(job.id, 77)
    job.status = Status.PROCESSING
    assert await queue.save(job, LEASE_S)
    assert (await stored(queue, job)).status_message_id == 77


# Claims


async def every_verb(queue: Queue, job: Job) -> list[bool]:
    """What a claim's holder can do, done with a job that says it was posted."""
    job = dataclasses.replace(job, status=Status.COMPLETED, facts={"title": "old"})
    job.posts = [Post(1, "of the older claim", state="sent")]
    verbs = (
        lambda one: queue.save(one, LEASE_S),
        lambda one: queue.keep(one, LEASE_S),
        queue.release,
        queue.finish,
    )
    return [await verb(dataclasses.replace(job)) for verb in verbs]


async def test_older_claim_changes_nothing(queue: Queue) -> None:
    await queue.add(a_job())
    old = await claim(queue)
    await queue.recover("me", LEASE_S)
    new = await claim(queue)
    assert new.id == old.id and new.claim_number > old.claim_number
    before = await stored(queue, new)
    assert await every_verb(queue, old) == [False] * 4
    assert await stored(queue, new) == before


async def test_claim_of_another_worker_changes_nothing(queue: Queue) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    other = dataclasses.replace(job, worker="another")
    assert await every_verb(queue, other) == [False] * 4
    assert await stored(queue, job) == job


@pytest.mark.parametrize("end", ["release", "finish", "cancel", "a status that ends"])
async def test_claim_that_has_ended_guards_nothing(queue: Queue, end: str) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    held = dataclasses.replace(job)
    if end == "release":
        assert await queue.release(job)
    elif end == "cancel":
        assert await queue.cancel(job.id)
    else:
        job.status = Status.FAILED
        store = queue.finish(job) if end == "finish" else queue.save(job, LEASE_S)
        assert await store
    before = await stored(queue, job)
    assert await every_verb(queue, held) == [False] * 4
    assert await stored(queue, job) == before


async def test_posts_are_guarded_by_the_number_of_the_claim(queue: Queue) -> None:
    await queue.add(a_job())
    first = await claim(queue)
    first.status = Status.UPLOADING
    first.posts = [Post(1, "words", {"a.jpg": "00"}), Post(2, "more")]
    assert await queue.save(first, LEASE_S)
    (second,) = await queue.recover("me", LEASE_S)
    assert second.posts == first.posts
    first.posts[0].state = "sent"
    assert not await queue.save(first, LEASE_S)
    second.posts[0].state, second.posts[0].sending_at = "sending", 1.5
    assert await queue.save(second, LEASE_S)
    assert (await stored(queue, second)).posts == second.posts


async def test_keep_prolongs_the_lease_and_stores_nothing(queue: Queue) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    before = await stored(queue, job)
    job.status, job.facts = Status.UPLOADING, {"title": "t"}
    assert await queue.keep(job, 2 * LEASE_S)
    after = await stored(queue, job)
    assert after.lease_until > before.lease_until + LEASE_S / 2
    assert dataclasses.replace(after, lease_until=before.lease_until) == before
    assert await queue.save(job, LEASE_S)
    assert (await stored(queue, job)).facts == {"title": "t"}


async def test_every_operation_may_be_done_twice(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_downloads=1)
    job, other = a_job(), a_job()

    async def twice(operation: Callable[[], Awaitable[T]], of: Job = job) -> list[T]:
        """The answers; the second changes nothing but the lease."""
        first = await operation()
        before = dataclasses.replace(await stored(queue, of), lease_until=0)
        answers = [first, await operation()]
        assert dataclasses.replace(await stored(queue, of), lease_until=0) == before
        return answers

    assert await twice(lambda: queue.add(job)) == [0, 0]
    assert await twice(lambda: queue.add(other), other) == [2, 2]
    assert await twice(lambda: queue.move(other.id, HIGH), other) == [True, True]
    assert await twice(lambda: queue.move(other.id, LOW), other) == [True, True]
    mine, nothing = await twice(lambda: queue.claim("me", LEASE_S))
    assert mine and not nothing
    assert await twice(lambda: queue.keep(mine, LEASE_S)) == [True, True]
    await twice(lambda: queue.set_status_message(job.id, 5))
    mine.status = Status.PROCESSING
    assert await twice(lambda: queue.save(mine, LEASE_S)) == [True, True]
    await queue.cancel(other.id)
    released = dataclasses.replace(mine)
    assert await twice(lambda: queue.release(released)) == [True, False]
    assert (await queue.add(job), len(await queue.list(statuses=["queued"]))) == (0, 1)
    mine = await claim(queue)
    mine.status, mine.folder = Status.UPLOADING, f"kept/{job.id}"
    await queue.save(mine, LEASE_S)
    mine.status = Status.COMPLETED
    assert await twice(lambda: queue.finish(mine)) == [True, False]
    await twice(lambda: queue.forget_files(job.id))
    assert await queue.add(job) == 0  # the answer that was lost comes a week later
    await queue.add(last := a_job())
    cancelled, over = await twice(lambda: queue.cancel(last.id), last)
    assert cancelled and cancelled.status is Status.CANCELLED and over is None


async def test_job_ends_with_a_time_even_when_its_worker_gave_none(
    queue: Queue,
) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    job.status = Status.FAILED
    await queue.finish(job)
    assert abs((await stored(queue, job)).finished_at - time.time()) < 60


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
    sqlite_queue = module("sqlite_queue")
    monkeypatch.setattr(sqlite_queue, "now", lambda: time.time() + by_s)


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


@pytest.mark.parametrize("runs", ATTEMPT_STATUSES)
async def test_job_that_ran_when_the_bot_died_runs_again(
    open_queue: Open, runs: Status
) -> None:
    queue = await open_queue()
    waiting, running, uploading, done = (a_job(guild) for guild in range(1, 5))
    await added(queue, running, uploading, done)
    for _ in range(3):
        job = await claim(queue)
        if job.id == uploading.id:
            job.status = Status.UPLOADING
        elif job.id == done.id:
            job.status = Status.COMPLETED
        else:
            job.status = runs
        await queue.save(job, LEASE_S)
    await queue.add(waiting)
    for start in (1, 2, 3):
        queue = await open_queue()
        [upload] = await queue.recover("me again", LEASE_S)
        assert (upload.id, upload.status) == (uploading.id, Status.UPLOADING)
        assert (upload.worker, upload.claim_number) == ("me again", 1 + start)
        assert upload == await stored(queue, uploading)
        assert await queue.keep(upload, LEASE_S)
        again = await stored(queue, running)
        assert (again.status, again.crashes) == (Status.QUEUED, 0)
        assert await claim_all(queue) == [running.id, *([waiting.id] * (start == 1))]
        if start == 1:
            await queue.cancel(waiting.id)
    assert await status(queue, done) is Status.COMPLETED


ADD = """
import asyncio, sys
from pathlib import Path
import bossbot

async def main():
    data, own, ours = map(Path, sys.argv[1:])
    own.mkdir(exist_ok=True)
    app = bossbot.App(bossbot.Settings(data_dir=data, plugins_dir=own), ours)
    app.plugins.load()
    bossbot.prepare_data(data)
    await app.database.start()
    for number in range(1000):
        name = f"{number}"
        job = bossbot.Job(id=name, url=name, guild_id=number, request_key=name)
        if await app.queue.add(job) is not None:
            print(number, flush=True)

asyncio.run(main())
"""


def test_every_acknowledged_job_survives_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    last = -1
    folders = data, tmp_path / "own", our_plugins("sqlite_database", "sqlite_queue")
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", ADD, *folders],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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


async def test_old_rows_without_files_are_removed_and_the_others_stay(
    open_queue: Open,
) -> None:
    queue = await open_queue(sqlite_queue__keep_s=3600, max_queue_size=5000)

    async def ended(hours_ago: float, folder: str = "") -> str:
        await queue.add(a_job())
        job = await claim(queue)
        job.status, job.folder = Status.COMPLETED, folder
        job.finished_at = bossbot.now() - 3600 * hours_ago
        await queue.finish(job)
        return job.id

    kept = await ended(2, "downloads/1")
    row = row_of((await queue.list())[0])
    names = ", ".join(f":{name}" for name in row)
    async with queue.app.database.transaction() as connection:
        old_rows = [
            {**row, "id": f"old {number}", "request_key": number, "folder": ""}
            for number in range(1200)  # more than are removed in one statement
        ]
        sql = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({names})"
        await connection.executemany(sql, old_rows)
    old, young = await ended(2), await ended(0.5)
    (waiting,) = await added(queue, a_job(created_at=1))
    assert len(await queue.list()) == 1204
    queue = await open_queue(sqlite_queue__keep_s=3600)
    async with asyncio.timeout(60):
        while len(await queue.list()) > 3:
            await asyncio.sleep(0.01)
    assert [job.id for job in await queue.list()] == [kept, young, waiting]
    await queue.forget_files(kept)
    queue = await open_queue(sqlite_queue__keep_s=3600)
    async with asyncio.timeout(60):
        while await queue.get(kept):
            await asyncio.sleep(0.01)
    assert [job.id for job in await queue.list()] == [young, waiting]
    assert await queue.get(old) is None


async def test_list_leaves_out_what_ended_before(queue: Queue) -> None:
    ended = []
    for at_s in (100, 200):
        await queue.add(a_job())
        job = await claim(queue)
        job.status, job.finished_at = Status.FAILED, at_s
        await queue.finish(job)
        ended.append(job.id)
    (waiting,) = await added(queue, a_job())
    assert [job.id for job in await queue.list()] == [*ended, waiting]
    assert [job.id for job in await queue.list(since=200)] == [ended[1], waiting]
    failed = await queue.list(1, [Status.FAILED], since=150)
    assert [job.id for job in failed] == ended[1:]


async def test_ended_jobs_come_page_by_page_in_the_order_of_their_ends(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("sqlite_queue"), "PAGE", 3)
    ends: dict[str, float] = {}
    for at_s in (5, 3, 3, 3, 3, 9, 7, 1):
        await queue.add(a_job())
        job = await claim(queue)
        job.status, job.finished_at = Status.COMPLETED, at_s
        await queue.finish(job)
        ends[job.id] = at_s
    await queue.add(a_job())
    expected = sorted(ends, key=lambda job_id: ends[job_id])
    assert [job.id async for job in queue.ended()] == expected
    assert [job.id async for job in queue.ended(3)] == expected[1:]
    assert [job.id async for job in queue.ended(10)] == []
    assert (await queue.find([*expected[:2], "nobody"])).keys() == {*expected[:2]}


async def test_job_is_untold_until_it_is_said_to_be_told(queue: Queue) -> None:
    first, second, third = await added(queue, a_job(), a_job(), a_job())
    await queue.cancel(second)
    untold = [job.id async for job in queue.untold()]
    assert untold == [first, third, second]
    await queue.set_told([second, first, "nobody"])
    assert [job.id async for job in queue.untold()] == [third]


async def test_forgotten_files_are_gone_and_nothing_else(queue: Queue) -> None:
    await queue.add(a_job())
    job = await claim(queue)
    job.status, job.file_count = Status.COMPLETED, 3
    job.folder = f"downloads/{job.id}"
    await queue.finish(job)
    await queue.forget_files(job.id)
    assert await stored(queue, job) == dataclasses.replace(job, folder="")
    await queue.forget_files("nobody")


# A database that is locked, a task that is cancelled


async def test_locked_database_is_waited_for_without_blocking_the_loop(
    queue: Queue,
) -> None:
    path = database_of(queue)
    with locked_by_another_process(path) as other:
        adding = [asyncio.create_task(queue.add(a_job())) for _ in range(5)]
        assert await longest_pause_s(30) < 0.2
        assert not any(task.done() for task in adding)
        await asyncio.to_thread(other.communicate, "\n")
        assert await asyncio.gather(*adding) == [0, 0, 0, 4, 5]
    assert on_disk(path, "SELECT count(*) FROM jobs") == [(5,)]


async def test_link_pasted_while_the_database_is_locked_for_6_s_is_taken_after_it(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        path = bot.app.database.path
        with locked_by_another_process(path, 6) as other:
            assert other.stdout
            held = asyncio.create_task(asyncio.to_thread(other.stdout.readline))
            await stage.says(f"$download {link(stage.image())}")
            turns = 0
            while not held.done():
                await longest_pause_s(10)
                turns += 1
            assert turns > 5, "the loop waited, too"
            assert stage.said() == [] == on_disk(path, "SELECT * FROM jobs")
            await asyncio.to_thread(other.communicate, "\n")
        [message] = await stage.gets(1)
        assert message.files[0].data == stage.bytes_of(stage.image())


async def test_task_cancelled_at_any_moment_adds_and_announces_whole_or_not(
    queue: Queue,
) -> None:
    changes, known = await listen(queue), set[str]()
    for turns in range(0, 40, 3):
        first, second = a_job(), a_job()
        adding = asyncio.create_task(queue.add(first))
        for _ in range(turns):
            await asyncio.sleep(0)
        adding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await adding
        assert await queue.add(second) is not None
        ids = {row[0] for row in on_disk(database_of(queue), "SELECT id FROM jobs")}
        assert second.id in ids - known <= {first.id, second.id}, f"after {turns}"
        assert ids == {job.id for job in await queue.list()}, f"after {turns}"
        known = ids
    await queue.stop()
    assert {change.job.id for change in await rest_of(changes)} == known


@pytest.mark.parametrize("turns", range(0, 20, 3))
async def test_change_whose_caller_is_cancelled_is_announced_all_the_same(
    queue: Queue, turns: int
) -> None:
    await added(queue, *[a_job() for _ in range(3)])
    held = [await claim(queue) for _ in range(3)]
    held[0].status = Status.PROCESSING
    changes = await listen(queue)
    work = [
        asyncio.create_task(some)
        for some in (
            queue.save(held[0], LEASE_S),
            queue.release(held[1]),
            queue.cancel(held[2].id),
        )
    ]
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in work:
        task.cancel()
    await asyncio.wait(work)
    await queue.stop()
    told = {change.job.id: change.job.status for change in await rest_of(changes)}
    for job in await queue.list():
        assert job.status is told.get(job.id, Status.DOWNLOADING)


async def test_change_that_waits_for_a_lock_is_in_the_feed_before_its_end(
    queue: Queue,
) -> None:
    changes = await listen(queue)
    job = a_job()
    with locked_by_another_process(database_of(queue)) as other:
        adding = asyncio.create_task(queue.add(job))
        await longest_pause_s(10)
        stopping = asyncio.create_task(queue.stop())
        await longest_pause_s(10)
        await asyncio.to_thread(other.communicate, "\n")
        await asyncio.gather(adding, stopping)
    assert [change.job for change in await rest_of(changes)] == [job]


# A power cut


@pytest.fixture
def disk(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(database_of(queue), tmp_path / "disk.db")
    monkeypatch.setattr(module("sqlite_database"), "sync_file", disk.sync_file)
    queue.app.database.sync_within_s = 1000  # type: ignore[attr-defined]
    return disk


STATES = """SELECT status, posts LIKE '%"sending"%' FROM jobs"""


async def test_power_cut_takes_no_new_job_no_post_under_way_and_no_end(
    queue: Queue, disk: Disk
) -> None:
    await added(queue, a_job())
    assert disk.holds(STATES) == [("queued", 0)]
    job = await claim(queue)
    job.status = Status.UPLOADING
    job.posts = [Post(1, "words")]
    await queue.save(job, LEASE_S)
    assert disk.syncs == 1  # no one outside knows of the claim
    job.posts[0].state = "sending"
    await queue.save(job, LEASE_S)
    assert disk.holds(STATES) == [("uploading", 1)]
    job.posts[0].state = "sent"
    await queue.save(job, LEASE_S)
    job.status = Status.COMPLETED
    await queue.finish(job)
    assert disk.holds(STATES) == [("completed", 0)]
    assert disk.syncs == 3
    await queue.add(other := a_job())
    await queue.cancel(other.id)
    assert disk.holds(STATES)[1] == ("cancelled", 0)


async def test_nobody_hears_of_a_job_before_it_is_on_the_disk(
    queue: Queue, disk: Disk
) -> None:
    changes = await listen(queue)
    disk.free.clear()
    adding = asyncio.create_task(queue.add(job := a_job()))
    while not disk.syncs:
        await asyncio.sleep(0.01)
    assert await anext(changes) is None and queue.waits()  # so that workers look
    claimed = await claim(queue)  # this waits for nothing
    claimed.status = Status.PROCESSING
    await queue.save(claimed, LEASE_S)
    await queue.report(claimed, Progress("a"))
    again = asyncio.create_task(queue.add(job))
    hearing = asyncio.create_task(anext(changes))
    await longest_pause_s(10)
    assert not adding.done() and not again.done() and not hearing.done()
    disk.free.set()
    assert await asyncio.gather(adding, again) == [0, 0]
    first = await hearing
    await queue.stop()
    changes_told = [change for change in [first, *await rest_of(changes)] if change]
    told = [(change.job.status, change.progress is None) for change in changes_told]
    assert told == [
        ("queued", True),
        ("downloading", True),
        ("processing", True),
        ("processing", False),
    ]


async def test_all_who_wait_share_a_sync(queue: Queue, disk: Disk) -> None:
    disk.free.clear()
    adding = [asyncio.create_task(queue.add(a_job(n))) for n in range(30)]
    while len(await queue.list()) < 30:
        await asyncio.sleep(0.01)
    disk.free.set()
    assert None not in await asyncio.gather(*adding)
    assert disk.syncs <= 2
    assert len(disk.holds(STATES)) == 30


async def test_job_whose_adding_was_cancelled_is_told_when_it_is_on_the_disk(
    queue: Queue, disk: Disk
) -> None:
    changes = await listen(queue)
    disk.free.clear()
    adding = asyncio.create_task(queue.add(job := a_job()))
    while not disk.syncs:
        await asyncio.sleep(0.01)
    adding.cancel()
    await asyncio.wait([adding])
    stopping = asyncio.create_task(queue.stop())
    disk.free.set()
    await stopping
    assert [change.job.id for change in await rest_of(changes)] == [job.id]
    assert disk.holds(STATES) == [("queued", 0)]


async def test_link_that_cannot_be_brought_to_the_disk_is_refused_and_never_comes(
    queue: Queue, disk: Disk
) -> None:
    changes = await listen(queue)
    disk.error = OSError("no")
    with pytest.raises(Refused, match="disk is full or busy"):
        await queue.add(a_job())
    assert await queue.list() == []
    disk.error = None
    await queue.add(job := a_job())
    assert len(disk.holds(STATES)) == 1
    running = await claim(queue)
    running.status = Status.COMPLETED
    disk.error = OSError("no")
    with pytest.raises(OSError, match="no"):
        await queue.finish(running)
    await queue.stop()
    told = await rest_of(changes)  # an end is told in any case
    assert [(c.job.id, str(c.job.status)) for c in told] == [
        (job.id, "queued"),
        (job.id, "downloading"),
        (job.id, "completed"),
    ]


async def test_link_that_cannot_be_brought_to_the_disk_is_lost_to_its_worker_too(
    queue: Queue, disk: Disk
) -> None:
    changes = await listen(queue)
    disk.free.clear()
    adding = asyncio.create_task(queue.add(a_job()))
    while not disk.syncs:
        await asyncio.sleep(0.01)
    claimed = await claim(queue)
    also = asyncio.create_task(queue.add(job := a_job()))
    while not await queue.get(job.id):
        await asyncio.sleep(0)
    disk.errors = [OSError("no")]
    disk.free.set()
    with pytest.raises(Refused, match="disk is full or busy"):
        await adding
    await also
    assert not await queue.save(claimed, LEASE_S)
    assert [one.id for one in await queue.list()] == [job.id]
    assert queue.waits()
    assert await claim_all(queue) == [job.id]
    assert not queue.waits()
    await queue.stop()
    assert {one.job.id for one in await rest_of(changes)} == {job.id}


# Jobs that join another


async def finished(queue: Queue, job: Job, status: Status, **fields: Any) -> None:
    job.status = status
    for name, value in fields.items():
        setattr(job, name, value)
    assert await queue.finish(job)


async def test_job_that_is_the_same_joins_and_ends_with_the_other(queue: Queue) -> None:
    first, second, other = a_job(same="x"), a_job(same="x"), a_job(same="y")
    await added(queue, first, second, other)
    assert await queue.position(second.id) == 0
    third = a_job(same="x", created_at=time.time() + 9)  # after the first has begun
    mine = await claim(queue)
    assert await queue.add(third) == 0
    assert await claim_all(queue) == [other.id]
    assert not queue.waits()
    assert await queue.position(second.id) == 0
    assert not await queue.move(second.id, HIGH)
    assert mine.id == first.id
    changes = await listen(queue)
    posts = [Post(1, "words", {"a": "11"}, "sent", 5, channel_id=6)]
    facts = {"title": "t"}
    end = {"posts": posts, "facts": facts, "folder": "f", "joins": "0123456789"}
    await finished(queue, mine, Status.COMPLETED, **end)  # it was here already
    assert (await stored(queue, mine)).joins == "0123456789"
    told = list[str]()
    while len(told) < 3:
        if change := await anext(changes):
            told.append(change.job.id)
    assert told == [second.id, third.id, first.id]
    for one in (second, third):
        job = await stored(queue, one)
        assert (job.status, job.joins, job.posts) == (Status.COMPLETED, first.id, posts)
        assert (job.facts, job.folder, job.total_bytes) == (facts, "", 0)
        assert job.finished_at == mine.finished_at
        assert job.started_at == max(job.created_at, mine.started_at)
    await queue.add(later := a_job(same="x"))
    assert await claim_all(queue) == [later.id]


async def test_failure_of_a_link_is_that_of_all_who_asked_for_it(queue: Queue) -> None:
    first, second = a_job(same="x"), a_job(same="x")
    await added(queue, first, second)
    why = {"cause": Cause.GONE, "error": "It is gone.", "detail": "404"}
    await finished(queue, await claim(queue), Status.FAILED, **why)
    job = await stored(queue, second)
    assert (job.status, job.cause, job.error) == (
        Status.FAILED,
        Cause.GONE,
        why["error"],
    )
    assert await claim_all(queue) == []


@pytest.mark.parametrize("how", ["cancel waiting", "cancel running", "permission"])
async def test_what_is_the_first_ones_own_lets_the_others_go_on(
    open_queue: Open, how: str
) -> None:
    queue = await open_queue()
    first, second, third = (a_job(same="x") for _ in range(3))
    await added(queue, first, second, third)
    if how == "cancel waiting":
        await queue.cancel(first.id)
    else:
        mine = await claim(queue)
        if how == "cancel running":
            await queue.cancel(first.id)
        else:
            await finished(queue, mine, Status.FAILED, cause=Cause.PERMISSION)
    assert queue.waits()
    queue = await open_queue()  # it is so after a restart, too
    mine = await claim(queue)
    assert mine.id == second.id
    assert (await stored(queue, third)).joins == second.id
    await finished(queue, mine, Status.COMPLETED)
    assert await status(queue, third) is Status.COMPLETED
    assert not queue.waits()


async def test_who_is_let_go_waits_for_files_in_a_channel_of_their_own(
    queue: Queue,
) -> None:
    first, *others = (a_job(same="x", channel_id=n) for n in (2, 3, 4, 3, 4))
    await added(queue, first, *others)
    await queue.cancel(first.id)
    joins = [(await stored(queue, job)).joins for job in others]
    assert joins == ["", "", others[0].id, others[1].id]
    for leader in others[:2]:
        mine = await claim(queue)
        assert mine.id == leader.id
        await finished(queue, mine, Status.COMPLETED)
    assert {await status(queue, job) for job in others} == {Status.COMPLETED}
    assert not queue.waits()


async def test_limit_that_its_worker_has_found_is_stored(queue: Queue) -> None:
    await added(queue, job := a_job(limit_bytes=20))
    mine = await claim(queue)
    mine.limit_bytes = 10
    assert await queue.save(mine, 60)
    assert (await stored(queue, job)).limit_bytes == 10


async def test_who_has_joined_only_leaves(queue: Queue) -> None:
    first, second, third = (a_job(same="x") for _ in range(3))
    await added(queue, first, second, third)
    mine = await claim(queue)
    assert await queue.cancel(second.id)
    await finished(queue, mine, Status.COMPLETED)
    assert await status(queue, second) is Status.CANCELLED
    assert await status(queue, third) is Status.COMPLETED


async def test_many_who_ask_at_once_are_one_job(queue: Queue) -> None:
    jobs = [a_job(same="x") for _ in range(10)]
    await asyncio.gather(*map(queue.add, jobs))
    [mine] = await claim_all(queue)
    joins = [(await stored(queue, job)).joins for job in jobs if job.id != mine]
    assert joins == [mine] * 9


async def test_those_who_join_are_no_more_than_may_wait(open_queue: Open) -> None:
    queue = await open_queue(max_queue_size=2)
    await added(queue, *(a_job(same="x") for _ in range(3)))
    with pytest.raises(QueueFull):
        await queue.add(a_job(same="x"))
    await added(queue, a_job())  # they take no places in the line


async def test_what_has_joined_takes_none_of_its_members_share(queue: Queue) -> None:
    await added(queue, a_job(same="x"), a_job(same="x", user_id=3))
    assert [await queue.add(a_job(user_id=3)) for _ in range(2)] == [0, 0]


async def test_joined_job_goes_as_early_as_the_one_that_joins(queue: Queue) -> None:
    first, second = a_job(), a_job(same="x")
    await added(queue, first, second, a_job(same="x", priority=HIGH))
    assert (await claim(queue)).id == second.id


async def test_job_that_never_got_to_the_disk_lets_go_of_those_that_joined_it(
    queue: Queue, disk: Disk
) -> None:
    disk.free.clear()
    first, second = a_job(same="x"), a_job(same="x")
    adding = asyncio.create_task(queue.add(first))
    while not await queue.get(first.id):
        await asyncio.sleep(0)
    disk.errors = [OSError("no")]
    also = asyncio.create_task(queue.add(second))
    while not await queue.get(second.id):
        await asyncio.sleep(0)
    disk.free.set()
    with pytest.raises(Refused):
        await adding
    await also
    assert await queue.get(first.id) is None
    assert await claim_all(queue) == [second.id]
    assert not queue.waits()


# Changes


async def listen(queue: Queue) -> AsyncIterator[Change | None]:
    """The changes that come from now on."""
    changes = aiter(queue.changes())
    assert await anext(changes) is None
    return changes


async def rest_of(changes: AsyncIterator[Change | None]) -> list[Change]:
    """What comes until the end."""
    async with asyncio.timeout(60):
        return [change async for change in changes if change]


async def test_changes_are_those_of_the_status_in_order(queue: Queue) -> None:
    changes = await listen(queue)
    job = a_job()
    await queue.add(job)
    claimed = await claim(queue)
    await queue.keep(claimed, LEASE_S)
    claimed.status = Status.PROCESSING
    await queue.save(claimed, LEASE_S)
    await queue.save(claimed, LEASE_S)  # the same status
    await queue.set_status_message(job.id, 5)
    await queue.release(claimed)
    await queue.move(job.id, HIGH)  # told, too
    claimed = await claim(queue)
    claimed.status = Status.UPLOADING
    await queue.save(claimed, LEASE_S)
    claimed.status = Status.COMPLETED
    await queue.finish(claimed)
    await queue.forget_files(job.id)
    assert await queue.cancel(job.id) is None
    last = await stored(queue, job)
    await queue.stop()
    told = await rest_of(changes)
    assert [(change.previous, str(change.job.status)) for change in told] == [
        (None, "queued"),
        ("queued", "downloading"),
        ("downloading", "processing"),
        ("processing", "queued"),
        ("queued", "queued"),
        ("queued", "downloading"),
        ("downloading", "uploading"),
        ("uploading", "completed"),
    ]
    assert {change.job.id for change in told} == {job.id}
    assert {change.progress for change in told} == {None}
    assert told[4].job.priority is HIGH and told[-1].job == last


async def test_recovery_and_cancels_are_changes(queue: Queue) -> None:
    await added(queue, *[a_job() for _ in range(3)])
    uploading, running = await claim(queue), await claim(queue)
    (waiting,) = await queue.list(statuses=[Status.QUEUED])
    uploading.status = Status.UPLOADING
    await queue.save(uploading, LEASE_S)
    changes = await listen(queue)
    await queue.recover("me", LEASE_S)
    await queue.cancel(running.id)
    await queue.cancel(waiting.id)
    await queue.stop()
    told = await rest_of(changes)
    assert [(c.job.id, c.previous, str(c.job.status)) for c in told] == [
        (running.id, "downloading", "queued"),
        (running.id, "queued", "cancelled"),
        (waiting.id, "queued", "cancelled"),
    ]


async def test_none_comes_now_and_then_however_much_else_comes(queue: Queue) -> None:
    queue.tick_s = 0.05  # type: ignore[attr-defined]
    job = a_job()
    changes = await listen(queue)
    assert await anext(changes) is None

    async def chatter() -> None:
        while True:
            await queue.report(job, Progress("a"))
            await asyncio.sleep(0.001)

    talking = asyncio.create_task(chatter())
    try:
        async with asyncio.timeout(60):
            seen = [await anext(changes) for _ in range(20)]
            while seen[-1] is not None:  # since a delayed job may be due
                seen.append(await anext(changes))
    finally:
        talking.cancel()
    assert seen[0] is not None


async def test_report_passes_progress_on_and_commits_nothing(queue: Queue) -> None:
    changes = await listen(queue)
    await queue.add(a_job())
    job = await claim(queue)
    progress = Progress("a.mp4", 5, 10)
    job.facts = {"title": "not stored"}
    await queue.report(job, progress)
    await queue.stop()
    *_, last = await rest_of(changes)
    assert last == Change(job, Status.DOWNLOADING, progress)
    assert (await stored(queue, job)).facts == {}


async def test_listener_that_is_behind_gets_every_change_but_not_all_progress(
    queue: Queue,
) -> None:
    changes = await listen(queue)
    job = a_job()
    for _ in range(5000):
        await queue.report(job, Progress("a"))
    await queue.add(job)
    await queue.stop()
    told = await rest_of(changes)
    assert len(told) < 1000 and told[-1] == Change(job, None, None)


async def test_each_listener_gets_a_copy_of_its_own(queue: Queue) -> None:
    listeners = [await listen(queue) for _ in range(2)]
    job = a_job(facts={"title": "t"}, posts=[Post(1, "words")])
    await queue.add(job)
    await queue.report(job, Progress("a"))
    await queue.stop()
    told = [change for one in listeners for change in await rest_of(one)]
    assert [change.job for change in told] == [job] * 4
    for number, change in enumerate(told):
        change.job.facts["title"] = str(number)
        change.job.posts[0].state = "sent"
        change.job.status = Status.FAILED
    assert job == await stored(queue, job)
    titles = [change.job.title for change in told]
    assert titles == ["0", "1", "2", "3"] and job.title == "t"


async def test_changes_end_with_the_queue_and_at_once_after_it(queue: Queue) -> None:
    listeners = [await listen(queue) for _ in range(2)]
    jobs = await added(queue, *[a_job() for _ in range(3)])
    await queue.stop()
    await queue.stop()
    for one in listeners:
        assert [change.job.id for change in await rest_of(one)] == jobs
    assert await rest_of(queue.changes()) == []


async def test_listener_that_goes_leaves_nothing_behind(queue: Queue) -> None:
    changes = await listen(queue)
    known: set[Any] = queue._listeners  # type: ignore[attr-defined]
    assert len(known) == 1
    await changes.aclose()  # type: ignore[attr-defined]
    assert not known


# Counting and forgetting


async def ended(queue: Queue, **fields: Any) -> Job:
    """A job that was claimed and completed, with kept files of 10 bytes."""
    await queue.add(make_job(**fields))
    job = await queue.claim("me", LEASE_S)
    assert job
    job.status, job.total_bytes = Status.COMPLETED, 10
    job.folder = f"some/{job.id}"
    assert await queue.finish(job)
    return job


async def test_waiting_only_cancels_nothing_that_has_begun(queue: Queue) -> None:
    await queue.add(make_job())
    await queue.add(make_job())
    running = await queue.claim("me", LEASE_S)
    assert running
    [waiting] = await queue.list(statuses=[Status.QUEUED])
    assert await queue.cancel(running.id, waiting_only=True) is None
    cancelled = await queue.cancel(waiting.id, waiting_only=True)
    assert cancelled and cancelled.cause is Cause.CANCELLED
    assert await queue.cancel(running.id)


async def test_count_is_of_a_member_a_server_or_both(queue: Queue) -> None:
    for guild_id, user_id in ((1, 3), (1, 3), (1, 4), (2, 3)):
        await ended(queue, guild_id=guild_id, user_id=user_id)
    await queue.add(make_job(guild_id=2, user_id=3))
    assert await queue.count(user_id=3) == (4, 30)
    assert await queue.count(guild_id=1) == (3, 30)
    assert await queue.count(2, 3) == (2, 10)
    assert await queue.count(3, 3) == (0, 0)


async def test_forget_removes_ended_jobs_and_nothing_else(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("sqlite_queue"), "PAGE", 2)
    mine = [await ended(queue, guild_id=1, user_id=3) for _ in range(3)]
    other = await ended(queue, guild_id=1, user_id=4)
    away = await ended(queue, guild_id=2, user_id=3)
    await queue.add(make_job(guild_id=1, user_id=3))
    forgotten: list[Job] = []
    while some := await queue.forget(1, 3):
        assert len(some) <= 2
        forgotten += some
    assert {job.id for job in forgotten} == {job.id for job in mine}
    assert {job.folder for job in forgotten} == {f"some/{job.id}" for job in mine}
    left = await queue.list()
    assert {other.id, away.id} < {job.id for job in left} and len(left) == 3
    assert await queue.forget(user_id=3) and await queue.forget(guild_id=1)
    [last] = await queue.list()
    assert last.status is Status.QUEUED


async def test_list_brings_the_last_that_have_ended(queue: Queue) -> None:
    jobs = [await ended(queue) for _ in range(4)]
    await queue.add(make_job())
    found = await queue.list(1, [Status.COMPLETED], limit=2)
    assert [job.id for job in found] == [job.id for job in jobs[2:]]
    assert len(await queue.list(1, [Status.QUEUED, Status.COMPLETED], limit=2)) == 3


async def test_counting_and_forgetting_use_indexes(queue: Queue) -> None:
    database = queue.app.database
    plain: list[str] = []
    seen = database.all

    async def explained(sql: str, *values: Any, **named: Any) -> Any:
        for row in await seen(f"EXPLAIN QUERY PLAN {sql}", *values, **named):
            if row["detail"].startswith("SCAN jobs"):
                plain.append(f"{row['detail']}: {sql}")
        return await seen(sql, *values, **named)

    database.all = explained  # type: ignore[method-assign]
    for guild_id, user_id in ((1, None), (None, 3), (1, 3)):
        await queue.count(guild_id, user_id)
        await queue.forget(guild_id, user_id)
    await queue.list(1, [Status.FAILED, Status.CANCELLED], 5, 10)
    await queue.list(1, [Status.QUEUED])
    assert plain == []


async def test_links_that_another_queue_leaves_behind_are_told(
    queue: Queue, logged: list[str]
) -> None:
    run: Any = module("sqlite_queue").run
    await queue.add(make_job())
    await run(queue.app)
    left = "WARNING links wait in the queue in SQLite, which is not used now: 1."
    assert not [line for line in logged if line.startswith(left)]
    vars(queue.app)["queue"] = None
    await run(queue.app)
    assert [line for line in logged if line.startswith(left)]
    vars(queue.app)["queue"] = queue
