"""The queue in Redis: the contract that the one in SQLite keeps, step by step the same
answers, and what only Redis has."""

import asyncio
import contextlib
import inspect
import itertools
import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
import redis
import small_model
import test_sqlite_queue as contract
from bossbot_plugins._alike import read_look
from bossbot_plugins._shared import GATEWAY
from bossbot_plugins.already_here import asked_about, find_posted
from bossbot_plugins.archive import reading
from bossbot_plugins.local_worker import Config as WorkerConfig
from bossbot_plugins.local_worker import LocalWorker
from bossbot_plugins.similar_notice import ask_for_looks
from conftest import ROOT, Home, MakeApp, MakeSettings, make_job, our_plugins
from discord_support import module
from hypothesis import strategies as st
from pydantic import TypeAdapter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis_support import RedisServer, own_redis, redis_prefix, redis_server  # noqa: F401
from test_sqlite_queue import Open
from two_queues import STEPS, Record, TwoQueues

import bossbot
from bossbot import (
    TERMINAL_STATUSES,
    App,
    Change,
    MediaFile,
    OutOfReach,
    Passage,
    Post,
    Progress,
    Queue,
    Refused,
    StartError,
    Status,
)

pytest_plugins = ("discord_fixtures",)

MIB = 2**20
PLUGINS = ("redis_queue", "platform_router", "sqlite_database")
# Made once: each app would make its own.
CHECKER = TypeAdapter(bossbot.Job)
# What is about SQLite, its file and its locks, or about the clock of the process.
OF_SQLITE = (
    "database_of", "disk: Disk", "module(", "queue.app.database", "on_disk",
    "sqlite_queue__", "queue.waits", "clock_set", "set_clock", "me again",
    "range(5000)",
)  # fmt: skip


def is_shared(test: Any) -> bool:
    source = inspect.getsource(test)
    return not any(words in source for words in OF_SQLITE)


globals().update(
    (name, test)
    for name, test in vars(contract).items()
    if name.startswith("test_") and is_shared(test)
)


async def from_now_on(queue: Any) -> AsyncIterator[Change | None]:
    """The changes without those before, which the reader may not have come to."""
    client = queue.redis.client
    if not queue._stopped:
        for key in queue._read_to:
            last = await client.xrevrange(key, count=1)
            while last and queue._read_to[key] != last[0][0]:
                await asyncio.sleep(0.001)
    async with contextlib.aclosing(type(queue).changes(queue)) as changes:
        async for change in changes:
            yield change


@pytest.fixture
async def open_queue(
    make_settings: MakeSettings,
    make_app: MakeApp,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
) -> AsyncIterator[Open]:
    """Opens the queue in Redis; what was open before is closed."""
    opened: list[App] = []

    async def open_queue(**values: Any) -> Queue:
        while opened:
            await opened.pop().stop()
        redis = {
            "redis_queue__url": redis_server.url,
            "redis_queue__prefix": redis_prefix,
        }
        app = make_app(make_settings(**{**redis, **values}), our_plugins(*PLUGINS))
        opened.append(app)
        module("redis_queue").checker = lambda: CHECKER
        await app.queue.start()
        queue: Any = app.queue
        queue.changes = partial(from_now_on, queue)
        return app.queue

    yield open_queue
    while opened:
        await opened.pop().stop()


@pytest.fixture
async def queue(open_queue: Open) -> Queue:
    return await open_queue()


# The same answers as the queue in SQLite, step by step


@pytest.fixture
async def two_queues(
    make_settings: MakeSettings,
    make_app: MakeApp,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[[], Awaitable[TwoQueues]]]:
    """Makes both queues anew, for up to 5 of a guild's links, and 2 of a member's."""
    settings = make_settings(
        redis_queue__url=redis_server.url,
        max_concurrent_downloads=4,
        max_concurrent_per_guild=2,
        max_concurrent_per_user=2,
        max_queue_size=5,
    )
    app = make_app(settings, our_plugins(*PLUGINS, "sqlite_queue"))
    monkeypatch.setattr(module("sqlite_database"), "sync_file", lambda path: None)
    module("redis_queue").checker = lambda: CHECKER
    await app.database.start()
    numbers = itertools.count()

    async def make() -> TwoQueues:
        two = TwoQueues(app, f"{redis_prefix}{next(numbers)}")
        await two.empty()
        return two

    yield make


NUMBER = st.integers(0, 11)


@hypothesis.settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(
    steps=st.lists(
        st.tuples(st.sampled_from(STEPS), NUMBER, NUMBER, NUMBER),
        min_size=10,
        max_size=40,
    )
)
async def test_every_step_is_as_in_sqlite(
    two_queues: Callable[[], Awaitable[TwoQueues]], steps: list[Any]
) -> None:
    two = await two_queues()
    for step in steps:
        await two.do(*step)


async def walk(two: TwoQueues, seed: int, steps: int) -> None:
    """A long way through both, crowded with claims that are old."""
    chance = random.Random(seed)
    for _ in range(steps):
        numbers = [chance.randrange(12) for _ in range(3)]
        await two.do(chance.choice(STEPS), *numbers)


async def test_long_walk_is_as_in_sqlite(
    two_queues: Callable[[], Awaitable[TwoQueues]],
) -> None:
    await walk(await two_queues(), 1, 60)


# Planted mistakes

SCRIPT = (ROOT / "plugins/parts/_redis_queue.lua").read_text()
CLAIM = (60, 4, 2, "1.0")  # lease, slots, per guild, version


def added(at: int, name: str, **fields: Any) -> tuple[Any, ...]:
    """A call that adds a job."""
    row = {"id": name, "status": "queued", "priority": 1, "request_key": name, **fields}
    return ("add", at, 2, name, 9, 9, 9, stored(**row))


def stored(**fields: Any) -> str:
    """Fields as the script takes them."""
    return json.dumps({name: str(value) for name, value in fields.items()})


# What is not compared with SQLite: leases that end, answers that were lost, two workers;
# and what chance seldom comes to.
RARE: list[tuple[Any, ...]] = [
    added(1, "a"),
    added(2, "b"),
    ("claim", 10, 2, "me", "t1", *CLAIM),
    ("claim", 11, 2, "me", "t1", *CLAIM),  # the same try
    ("keep", 12, 2, "a", 1, "other", 60),
    ("keep", 13, 2, "a", 1, "me", 100),
    ("claim", 90, 2, "other", "t2", *CLAIM),  # gets b
    ("claim", 100, 2, "other", "t3", *CLAIM),
    ("claim", 120, 2, "other", "t4", *CLAIM),  # a is free
    ("save", 121, 2, "a", 1, "me", 60, stored(status="uploading")),
    ("save", 122, 2, "a", 2, "other", 60, stored(status="uploading")),
    ("recover", 123, 2, "me", 60),
    ("recover", 124, 2, "other", 60),
    ("finish", 125, 2, "a", 3, "other", stored(status="completed", folder="kept")),
    ("remove", 126, 2, "", "a"),
    ("remove", 127, 2, "1", "a"),
    added(128, "a"),
    *(added(130 + n, f"u{n}", guild_id=7, user_id=5) for n in range(3)),
    *(("claim", 140, 2, "me", f"u{n}", *CLAIM) for n in range(4)),
    *(
        ("save", 141, 2, f"u{n}", 1, "me", 60, stored(status="processing"))
        for n in range(2)
    ),
    ("claim", 142, 2, "me", "u4", *CLAIM),  # u2's member has two that are processed
    *(added(150 + n, f"s{n}", same="x", channel_id=n % 2) for n in range(4)),
    ("cancel", 160, 2, "s0", 160, ""),  # s1 and s2 wait
    added(161, "s4", same="x"),  # joins s1
    ("cancel", 162, 2, "s1", 162, ""),
]
MISTAKES = {
    "low priorities first": ("'%d', (2 - tonumber(priority))", "'%d', tonumber(priority)"),
    "a member runs one more": ("return count('downloading', user) >=", "return count('downloading', user) >"),
    "what is processed does not count": (" or count('processing', user) >= per_user", ""),
    "busy guilds are as good": ("count('running', guild) * STEP + ", ""),
    "a guild runs one more": ("/ STEP) >= per_guild", "/ STEP) > per_guild"),
    "slots are never free": ("add_up(key, field, -1)", "add_up(key, field, 0)"),
    "any worker holds a claim": ("job.worker == worker and ", ""),
    "old claims hold": (" and job.claim_number == number", ""),
    "ended claims hold": ("if CLAIMED[job.status] and job.worker", "if job.worker"),
    "a request is taken twice": ("if known ~= id then", "if false then"),
    "one more may wait": ("if here >= tonumber(most)", "if here > tonumber(most)"),
    "one more may join": ("leader) >= tonumber(most)", "leader) > tonumber(most)"),
    "all who are let go wait": ("{joins = first[channel]}", "{joins = ''}"),
    "nobody is let go": ("if OWN[job.cause] then", "if false then"),
    "a cancelled claim has its number": ("finished_at = at,\n    claim_number = one_more(job, 'claim_number'),", "finished_at = at,"),
    "other lines are not looked at": ("    refresh_all_of(user)\n", ""),
    "no job is delayed": ("= 'queued', '', '', due", "= 'queued', '', '', ''"),
    "uploads start anew": ("if job.status == 'uploading'", "if false"),
    "claims have one number": ("worker = worker, claim_number = one_more(job, 'claim_number'),", "worker = worker,"),
    "forgotten requests stay": ("  call('HDEL', P .. 'requests', job.request_key)\n", ""),
    "moves are not told": ("tell(job, change(job, {priority = priority}))", "change(job, {priority = priority})"),
    "every save is told": ("if previous ~= job.status then\n    tell(job, previous)\n  end\n  return fields", "if true then\n    tell(job, previous)\n  end\n  return fields"),
    "the last one is joined": ("tonumber(get(a, 'seq', 0)) < tonumber", "tonumber(get(a, 'seq', 0)) > tonumber"),
    "who joins hurries nobody": ("if priority > tonumber(get(leader, 'priority'))", "if false"),
    "who was let go is not new": ("tell(one, '') --", "tell(one, 'queued') --"),
    "facts are not shared": ("'facts', 'posts',", "'posts',"),
    "delayed jobs have no place": ("    + call('ZCOUNT', P .. 'later:' .. guild, '-inf', last)", ""),
    "a worker has one more slot": ("count('slots', worker) >= tonumber(slots)", "count('slots', worker) > tonumber(slots)"),
    "all began with the first": ("later and came or began", "began"),
    "delays never end": ("      change(job, {})\n", ""),
    "a lost answer is lost": ("if get(id, 'token') == token then", "if false then"),
    "no lease ends": ("      give_back(job, true)\n", ""),
    "leases are not kept": ("sets.leases = job.lease_until == '' and '0' or job.lease_until", "sets.leases = '0'"),
    "told jobs are untold": ("    if job.told == '' then\n      sets.untold = at\n    end\n", "    sets.untold = at\n"),
    "kept files are forgotten": ("(all == '1' or not there)", "true"),
}  # fmt: skip


def test_planted_mistakes_are_caught(
    redis_server: RedisServer,  # noqa: F811
) -> None:
    record, rare = (Record(redis_server.url, SCRIPT) for _ in range(2))
    record.walk(1, 800)
    rare.keep(RARE)
    missed = []
    for name, (right, wrong) in MISTAKES.items():
        assert SCRIPT.count(right) == 1, name
        planted = SCRIPT.replace(right, wrong)
        if not (rare.catches(planted) or record.catches(planted)):
            missed.append(name)
    assert not missed, missed


@pytest.mark.parametrize("same", [False, True], ids=["apart", "joined"])
def test_two_jobs_and_two_workers_come_to_no_other_states(
    redis_server: RedisServer,  # noqa: F811
    same: bool,
) -> None:
    client = redis.Redis.from_url(redis_server.url, db=2, decode_responses=True)
    assert small_model.explore(client, 4, same) > 500


# What is read from Redis


HONEST = {"id": "0123456789", "url": "https://a.example/1", "status": "queued"}
WRONG = {
    "an id that names another folder": {"id": "../../etc00"},
    "an id that is too short": {"id": "0123"},
    "an id in other digits": {"id": "٠١٢٣٤٥٦٧٨٩"},
    "a status that there is not": {"status": "done"},
    "a number that is none": {"guild_id": "one"},
    "a folder outside": {"folder": "../0123456789"},
    "a folder of another job": {"folder": "downloads/1/9876543210"},
    "a folder from the root": {"folder": "/etc/0123456789"},
    "a table that is a list": {"options": "[]"},
    "no JSON": {"facts": "{"},
    "JSON that is nested deep": {"facts": '{"a":' * 100_000},
    "a post that is none": {"posts": '[{"number": "x"}]'},
    "a file outside": {
        "posts": '[{"number": 1, "content": "", "files": {"../a": ""}}]'
    },
    "a giant": {"detail": "x" * 2**21},
    "a number that no database takes": {"limit_bytes": "9" * 20},
    "a time that is none": {"created_at": "nan"},
    "a time that no calendar has": {"finished_at": "1e300"},
    "a post's message that none has": {
        "posts": '[{"number": 1, "content": "", "message_id": 1e30}]'
    },
    "a post's thread that none has": {
        "posts": '[{"number": 1, "content": "", "thread_id": 1e30}]'
    },
    "the folder itself": {
        "posts": '[{"number": 1, "content": "", "files": {".": ""}}]'
    },
    "the folder around it": {
        "posts": '[{"number": 1, "content": "", "files": {"..": ""}}]'
    },
}


def test_row_that_the_bot_would_not_have_written_is_no_job(two_queues: Any) -> None:
    decode = module("redis_queue").decode
    assert decode(HONEST).url == HONEST["url"]
    for name, wrong in WRONG.items():
        try:
            decode({**HONEST, **wrong})
        except ValueError as error:
            assert str(error), name
        else:
            raise AssertionError(f"{name} is taken")


@pytest.mark.parametrize("spoiler", [False, True])
def test_failure_reads_as_the_text_of_a_stranger(
    two_queues: Any, spoiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(error: str) -> str:
        options = json.dumps({"spoiler": spoiler})
        row = {**HONEST, "error": error, "options": options}
        return str(module("redis_queue").decode(row).error)

    own = "||<https://a.example/1>||" if spoiler else "<https://a.example/1>"
    said = f"a.mp4: It is too long.\nSource: {own}\nIt resets <t:1795794607:R>."
    assert read(said) == said
    forged = "**Win** [here](https://evil.example) <@1>\n# Big\n<https://evil.example>"
    assert read(forged).split("\n") == [
        r"\*\*Win\*\* \[here\]\(https:\/\/evil.example\) \<\@1\>",
        r"\# Big",
        r"\<https:\/\/evil.example\>",
    ]
    assert len(read("*" * 10_000)) < 5000
    known = SimpleNamespace(gettext={(text := "Filters (no)."): "Filter."}.get)
    assert read(text) == r"Filters \(no\)."
    monkeypatch.setitem(bossbot.catalogues, "de", known)  # type: ignore[arg-type]
    assert read(text) == text  # it is translated where it is shown


def test_what_a_newer_version_wrote_is_read(two_queues: Any) -> None:
    post = '[{"number": 1, "content": "words", "newer": [1]}]'
    job = module("redis_queue").decode({**HONEST, "posts": post, "newer": "x"})
    assert job.posts == [Post(1, "words")]


@pytest.mark.parametrize(
    "wrong",
    [{"url": "file:///etc/passwd"}, {"url": ""}, {"folder": "../x"}, {"posts": "x"}],
    ids=["a file's link", "no link", "a folder", "posts"],
)
async def test_wrong_job_ends_and_the_next_one_is_claimed(
    queue: Queue, wrong: dict[str, str]
) -> None:
    redis: Any = queue
    first, second = make_job(), make_job()
    await queue.add(first)
    await queue.add(second)
    key = redis.redis.key(f"job:{first.id}")
    await redis.redis.client.hset(key, mapping=wrong)
    claimed = await queue.claim("me", 60)
    assert claimed and claimed.id == second.id
    assert await redis.redis.client.hget(key, "status") == "failed"
    assert await queue.claim("me", 60) is None


async def test_lines_that_hold_what_does_not_belong_there_go_on(
    queue: Queue, logged: list[str]
) -> None:
    """Whoever wrote that: each job is claimed once, and none that has ended again."""
    redis: Any = queue.redis  # type: ignore[attr-defined]
    ended, held = make_job(), make_job()
    await queue.add(held)
    await queue.add(ended)
    held = await queue.claim("me", 60)
    await queue.cancel(ended.id)
    honest = make_job()
    await queue.add(honest)
    wrong = {
        "gone": {},
        "joins": {"joins": "0000000000"},
        "elsewhere": {"guild_id": "abc"},
        "priority": {"priority": "9"},
        "seq": {"seq": "x"},
        "later": {"not_before": "x"},
        "fields": {str(number): "" for number in range(9000)},
    }
    wait = redis.key(f"wait:{honest.guild_id}")
    for name, fields in wrong.items():
        row = {"url": "x", "status": "queued", "priority": "1", "seq": "1"}
        row["guild_id"] = str(honest.guild_id)
        if fields:
            await redis.client.hset(redis.key(f"job:{name}"), mapping={**row, **fields})
        await redis.client.zadd(wait, {name: -1})
    for line in ("leases", "delayed", "held:me"):
        junk = {ended.id: 0, "gone": 0, **{f"junk{n}": 0 for n in range(50)}}
        await redis.client.zadd(redis.key(line), junk)
    claimed = [await queue.claim("me", 60) for _ in range(5)]
    assert [job.id for job in claimed if job] == [honest.id]
    assert [job.id for job in await queue.recover("me", 60)] == []
    claimed = [await queue.claim("me", 60) for _ in range(3)]
    assert {job.id for job in claimed if job} == {honest.id, held.id}
    assert (await queue.get(ended.id)).status is Status.CANCELLED
    assert len([line for line in logged if "in Redis is wrong" in line]) <= 2


async def test_changes_that_are_none_stop_nothing(open_queue: Open) -> None:
    queue: Any = await open_queue()
    redis, client = queue.redis, queue.redis.client
    said = aiter(queue.changes())
    assert await anext(said) is None
    nonsense = ("[" * 99_999, "[]", "{}", '{"name": 1, "x": 2}', "null", '{"name"')
    for progress in nonsense:
        row = {**HONEST, "progress": progress}
        await client.xadd(redis.key("progress"), row)
    shown = {"name": "n" * 9999, "done_bytes": "x", "share": 1e308, "items": -1}
    row = {**HONEST, "progress": json.dumps(shown)}
    row["facts"] = '{"title": {"a": 1}, "items": "many", "newer": 1}'
    await client.xadd(redis.key("progress"), row)
    async with asyncio.timeout(60):
        change = await anext(one async for one in said if one)
    assert change.progress == Progress("n" * 300)
    assert change.job.facts == {"newer": 1}
    await client.xadd(redis.key("progress"), {**HONEST, "progress": nonsense[0]})
    await queue.stop()


async def test_platform_and_engine_are_not_read_but_found(queue: Queue) -> None:
    """Cookies of a platform must not go to where a row says."""
    await queue.add(make_job(platform="instagram"))
    claimed = await queue.claim("me", 60)
    assert claimed and claimed.platform == ""


# Several workers


async def test_claim_whose_lease_ends_is_taken_over(queue: Queue) -> None:
    redis: Any = queue
    redis.clock = "1000"
    await queue.add(make_job())
    old = await queue.claim("one", 60)
    redis.clock = "1059"
    assert old and await queue.claim("two", 60) is None
    assert await queue.keep(old, 60)
    redis.clock = "1118"
    assert await queue.claim("two", 60) is None
    redis.clock = "1120"
    new = await queue.claim("two", 60)
    assert new and (new.id, new.worker, new.attempts) == (old.id, "two", 2)
    old.status = Status.UPLOADING
    assert not await queue.save(old, 60) and not await queue.keep(old, 60)
    assert not await queue.release(old) and not await queue.finish(old)


async def test_recover_gives_back_only_what_this_worker_held(queue: Queue) -> None:
    for number in range(4):
        await queue.add(make_job(guild_id=number, user_id=number))
    jobs = [await queue.claim(name, 60) for name in ("one", "two", "one", "two")]
    for job in jobs[2:]:
        assert job
        job.status = Status.UPLOADING
        await queue.save(job, 60)
    assert all(jobs)
    recovered = await queue.recover("one", 60)
    assert [job.id for job in recovered] == [jobs[2].id]  # type: ignore[union-attr]
    queued = await queue.list(statuses=[Status.QUEUED])
    assert [job.id for job in queued] == [jobs[0].id]  # type: ignore[union-attr]
    assert await queue.keep(jobs[3], 60)  # type: ignore[arg-type]


async def test_release_waits_ten_minutes_at_most(queue: Queue) -> None:
    redis: Any = queue
    redis.clock = "1000"
    await queue.add(make_job())
    job = await queue.claim("me", 60)
    assert job and await queue.release(job, 1e9)
    assert job.not_before == 1600


async def test_room_is_that_of_all_workers(open_queue: Open) -> None:
    queue = await open_queue(max_concurrent_downloads=1)
    assert await queue.claim("one", 60) is None
    assert await queue.claim("two", 60) is None
    places = [await queue.add(make_job(guild_id=n, user_id=n)) for n in range(3)]
    assert places == [0, 0, 1]


async def test_claim_whose_caller_is_cancelled_is_made_again(queue: Queue) -> None:
    for turns in range(0, 40, 4):
        await queue.add(make_job())
        claiming = asyncio.create_task(queue.claim("me", 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        job = None if claiming.cancelled() else claiming.result()
        job = job or await queue.claim("me", 60)
        assert job and job.claim_number == 1, f"after {turns}"
        assert await queue.keep(job, 60), f"after {turns}"
        await queue.cancel(job.id)


async def test_calls_of_one_moment_share_a_trip_and_only_the_wrong_one_fails(
    open_queue: Open,
) -> None:
    queue: Any = await open_queue(max_concurrent_downloads=3)
    trip, trips = queue.redis._trip, list[int]()

    async def counted(calls: Any) -> Any:
        trips.append(len(calls))
        return await trip(calls)

    queue.redis._trip = counted
    await queue.redis.client.script_flush()  # as after a restart of Redis
    jobs = [make_job(guild_id=number, user_id=number) for number in range(3)]
    wrong = queue._call("nonsense")
    said = await asyncio.gather(*map(queue.add, jobs), wrong, return_exceptions=True)
    assert said[:3] == [0, 0, 0] and isinstance(said[3], Refused)
    assert trips[0] == 4
    trips.clear()
    asked = [asyncio.create_task(queue.claim("me", 60)) for _ in range(4)]
    while not trips:
        await asyncio.sleep(0)
    for one in asked:  # when Redis may have answered, or not
        one.cancel()
    await asyncio.wait(asked)
    claimed = await asyncio.gather(*(queue.claim("me", 60) for _ in range(4)))
    assert {job and job.id for job in claimed} == {None, *(job.id for job in jobs)}
    assert [job.attempts for job in claimed if job] == [1, 1, 1]


async def test_many_questions_at_once_are_all_answered(queue: Queue) -> None:
    """More than redis-py opens connections."""
    job = make_job()
    await queue.add(job)
    found = await asyncio.gather(*(queue.get(job.id) for _ in range(200)))
    assert {one and one.id for one in found} == {job.id}


async def test_question_that_a_stop_cuts_off_does_not_cancel_who_asks(
    queue: Queue,
) -> None:
    redis: Any = queue.redis  # type: ignore[attr-defined]
    redis.finish_within_s = 0
    asked = asyncio.create_task(
        redis.ask(lambda: redis.client.blpop([redis.key("none")], 60), whole=False)
    )
    while not redis._asking:
        await asyncio.sleep(0)
    await redis.stop()
    with pytest.raises(OutOfReach):
        await asked


async def test_any_text_comes_back_as_it_was(queue: Queue) -> None:
    text = "".join(map(chr, range(0x250))) + '\u2028\U0001f600\\"/\u202e'
    await queue.add(make_job(facts={"title": text}, options={text: text}))
    job = await queue.claim("me", 60)
    assert job and job.facts == {"title": text} and job.options == {text: text}
    job.detail, job.status = text, Status.FAILED
    assert await queue.finish(job)
    stored = await queue.get(job.id)
    assert stored and (stored.detail, stored.facts) == (text, {"title": text})


async def test_worker_without_commands_hears_only_of_ids_and_statuses(
    open_queue: Open,
) -> None:
    queue = await open_queue()
    await queue.stop()
    queue.app.works = True
    worker: Any = type(queue)(queue.app, queue.config)  # type: ignore
    await worker.start()
    changes = aiter(worker.changes())
    assert await anext(changes) is None
    job = make_job()
    await worker.add(job)
    change = await anext(changes)
    assert change and (change.job.id, change.job.status) == (job.id, "queued")
    assert change.job.user_id == 0
    await worker.stop()


async def test_facts_are_the_same_for_all(
    make_settings: MakeSettings,
    make_app: MakeApp,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
) -> None:
    values = {"redis_queue__url": redis_server.url, "redis_queue__prefix": redis_prefix}
    apps = [make_app(make_settings(**values), our_plugins(*PLUGINS)) for _ in range(2)]
    one, other = (app.facts for app in apps)
    await one.start()
    assert await one.get("limit") == ""
    await one.set("limit", "5")
    assert await other.get("limit") == "5"
    await other.set("limit", "")
    assert await one.get("limit") == ""


async def test_quota_of_a_day_holds_on_all_machines_together(
    make_settings: MakeSettings,
    make_app: MakeApp,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Jobs of 1 MiB at once on three machines, of which the gateway does not hear."""
    values = {
        "redis_queue__url": redis_server.url,
        "redis_queue__prefix": redis_prefix,
        "quota__daily_quota": 10 * MIB,
        "max_concurrent_downloads": 6,
        "max_concurrent_per_guild": 20,
        "max_concurrent_per_user": 20,
    }
    machines = []
    for number in range(3):
        settings = make_settings(**values, data_dir=tmp_path / str(number))
        app = make_app(settings, our_plugins(*PLUGINS, "quota"))
        app.client = SimpleNamespace(bot=SimpleNamespace(is_owner=no_owner))  # type: ignore[assignment]
        machines.append(app)
    queue = machines[0].queue

    async def work(app: App, end: Status) -> int:
        job = make_job(limit_bytes=MIB, channel_id=1)
        await queue.add(job)
        job = await app.queue.claim(app.settings.data_dir.name, 60) or job
        with contextlib.suppress(Refused):
            await app.plugins.call("check_attempt", job=job)
            file = MediaFile(Path(f"{job.id}_1"), MIB, "", "image/png")
            if end is Status.COMPLETED:
                await app.plugins.call(
                    "check_upload", job=job, files=[file], channel=None
                )
                job.posts = [Post(1, "", {file.name: ""}, "sent", 1)]
            job.status = end
        if job.status not in TERMINAL_STATUSES:
            job.status = Status.CANCELLED
        await app.queue.finish(job)
        return len(job.posts)

    for failed, expected in ((2, 8), (0, 2), (0, 0)):  # which frees its share
        ends = [Status.FAILED] * failed + [Status.COMPLETED] * (10 - failed)
        works = [work(machines[n % 3], end) for n, end in enumerate(ends)]
        assert sum(await asyncio.gather(*works)) == expected
    check = partial(machines[0].plugins.call, "check_job", job=make_job(channel_id=1))
    with pytest.raises(Refused, match="used up"):
        await check()
    redis: Any = queue.redis  # type: ignore[attr-defined]
    await redis.client.hset(redis.key("facts"), "quota:1", "[")  # whoever wrote it
    await check()
    await redis.client.hset(redis.key("facts"), "quota:1", b"\xff")
    with pytest.raises(Refused, match="A check of this bot is broken"):
        await check()


async def no_owner(user: Any) -> bool:
    return False


async def test_old_rows_without_files_go(open_queue: Open) -> None:
    queue: Any = await open_queue()
    jobs = [make_job(user_id=n) for n in range(3)]
    for number, job in enumerate(jobs):
        await queue.add(job)
        mine = await queue.claim("me", 60)
        mine.status, mine.finished_at = Status.COMPLETED, bossbot.now()
        mine.finished_at -= 100 * (number < 2)
        mine.folder = f"kept/{mine.id}" * (number == 1)
        await queue.finish(mine)
    await queue.add(waiting := make_job(created_at=1))
    await queue._remove_old(bossbot.now() - 50)
    assert [job.id for job in await queue.list()] == [
        jobs[1].id,
        jobs[2].id,
        waiting.id,
    ]
    # A worker that is gone for a day has no files.
    await queue.redis.client.zadd(queue.redis.key("workers"), {"me": 1})
    await queue.workers()
    await queue._remove_old(bossbot.now() - 50)
    assert [job.id for job in await queue.list()] == [jobs[2].id, waiting.id]


async def test_machines_hear_which_files_are_to_be_forgotten(queue: Queue) -> None:
    redis: Any = queue.redis  # type: ignore[attr-defined]
    jobs = [make_job(guild_id=n, user_id=31337) for n in range(2)]
    for number, job in enumerate(jobs):
        await queue.add(job)
        mine = await queue.claim("me", 60)
        assert mine
        mine.status, mine.folder = Status.COMPLETED, f"kept/{job.id}" * (number == 0)
        await queue.finish(mine)
    await queue.add(there := make_job())
    assert len(await queue.forget(user_id=31337)) == 2
    wrong = {"id": "../../../x"}, {"id": there.id, "created_at": "0"}, {"x": "y"}
    for row in wrong:  # whoever wrote it
        await redis.client.xadd(redis.key("forgotten"), row)
    last = {"id": "0" * 10, "guild_id": 7, "created_at": 2.5}
    await redis.client.xadd(redis.key("forgotten"), last)
    heard = [await anext(queue.forgotten())]  # also what was there before
    async with asyncio.timeout(60):
        heard += [await anext(queue.forgotten())]
    facts = [(job.id, job.guild_id, job.created_at, job.user_id) for job in heard]
    assert facts == [
        (jobs[0].id, 0, jobs[0].created_at, 0),
        ("0" * 10, 7, 2.5, 0),
    ]


async def test_processes_ask_each_other(queue: Queue) -> None:
    redis: Any = queue
    redis.app.worker = SimpleNamespace(name="me")
    assert await queue.ask("me", "a", "?", 30) is None  # nobody has seen it
    await queue.claim("me", 60)
    assert await queue.ask("me", "a", "?", 0) is None
    seq = redis.redis.key("seq")  # which is no place for an answer
    await redis.redis.client.set(seq, 1)
    for wrong in ("[", "7", '["x"]', '[7, "x"]', '["seq", "x"]'):  # whoever wrote it
        await redis.redis.client.rpush(redis.redis.key("asked:b:me"), wrong)

    async def answer() -> None:
        async for question in queue.questions("b"):
            await question.answer(question.text.upper())

    queue.app.has_gateway = True
    answering = asyncio.create_task(answer())
    async with asyncio.timeout(60):
        assert await queue.ask("me", "b", "what?", 30) == "WHAT?"
        assert await queue.ask("me", "b", "and?", 30) == "AND?"
        assert await queue.ask(GATEWAY, "b", "who?", 30) is None  # there is none
        await redis.redis.client.set(redis.redis.key("gateway"), "it")
        assert await queue.ask(GATEWAY, "b", "who?", 30) == "WHO?"
    answering.cancel()
    assert await redis.redis.client.ttl(seq) == -1  # it does not go


WRONG_ANSWERS = ["[", "7", "[7]", '[["a", "b"]]', '[["a", "b", "c"]]', "[" * 2000]


async def test_texts_of_another_machine_are_checked() -> None:
    answers = [*WRONG_ANSWERS]

    async def ask(*about: Any) -> str:
        return answers.pop(0)

    app: Any = SimpleNamespace(queue=SimpleNamespace(shared=True, ask=ask))
    for _ in WRONG_ANSWERS:
        with pytest.raises((ValueError, TypeError, RecursionError)):
            await reading.ask_for_texts(app, make_job())
    answers.append(f'[["a", "b", NaN], ["c", "{"d" * 99}", 1.5]]')
    found = await reading.ask_for_texts(app, make_job())
    assert found == [Passage("a", "b"), Passage("c", "d" * 20, 1.5)]


async def test_one_process_of_all_removes_old_rows(queue: Queue) -> None:
    redis: Any = queue
    async with asyncio.timeout(60):
        while not await redis._ask("exists", "sweep"):  # by the start
            await asyncio.sleep(0.01)
    await redis._ask("delete", "sweep")
    ask, asked, swept = redis._ask, asyncio.Semaphore(0), list[float]()

    async def counted(*values: Any, **options: Any) -> Any:
        answer = await ask(*values, **options)
        asked.release()
        return answer

    async def remove_old(before: float) -> None:
        swept.append(before)

    redis._ask, redis._remove_old = counted, remove_old
    sweeps = [asyncio.create_task(redis._sweep()) for _ in range(2)]
    for _ in sweeps:
        await asyncio.wait_for(asked.acquire(), 60)
    await asyncio.sleep(0)
    for task in sweeps:
        task.cancel()
    assert len(swept) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        *WRONG_ANSWERS,
        *('{"a": 1}', '["0123456789"]', '["0123456789", []]', '["x", [[1, 2]]]'),
        *('["0123456789", [[1, -2]]]', '["0123456789", [[true, 2]]]'),
        *('["0123456789", [[1e30, 2]]]', f'["0123456789", [[1, {2**63}]]]'),
        f'["0123456789", {[[1, 2]] * 101}]',
    ],
)
async def test_what_others_say_of_posts_is_checked(wrong: str) -> None:
    async def ask(*about: Any) -> str:
        return wrong

    queue: Any = SimpleNamespace(shared=True, ask=ask)
    app: Any = SimpleNamespace(queue=queue, has_gateway=False)
    job = make_job(channel_id=1)
    assert await find_posted(job, app) is None
    assert await ask_for_looks(app, job) == []
    wrong = '["0123456789", [[1, 2], [3, 4]]]'
    found = await find_posted(job, app)
    assert found.id == "0123456789"
    assert [(p.message_id, p.channel_id) for p in found.posts] == [(1, 2), (3, 4)]


@pytest.mark.parametrize(
    "wrong",
    ["", "x", "1", "nan 0", "-1 0", "1 -1", "1 0 0", f"1 {'f' * 73}", "1 " + "0" * 999],
)
def test_look_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_look(wrong)


async def test_gateway_is_asked_only_where_short_links_lead(
    make_settings: MakeSettings, make_app: MakeApp
) -> None:
    plugins = our_plugins(*PLUGINS, "sqlite_queue", "tiktok", "twitter", "yt_dlp")
    app = make_app(make_settings(), plugins)
    job = make_job(url="https://vm.tiktok.com/Z/", platform="tiktok")

    async def get(job_id: str) -> Any:
        return job if job_id == job.id else None

    app.queue.get = get  # type: ignore[method-assign]
    post = "https://www.tiktok.com/@a/video/1"

    async def led(job_id: Any, url: Any) -> Any:
        text = json.dumps([job_id, url])
        found = await asked_about(app, text)
        return found and found.facts["leads_to"]

    assert await led(job.id, post) == post
    for url in ("https://x.com/a/status/1", "file:///etc/passwd", "x", None, [], 5):
        assert await led(job.id, url) is None
    assert await led("x", post) is await led([], post) is None
    for text in WRONG_ANSWERS:
        assert await asked_about(app, text) is None


async def test_changes_are_told_to_plugins_by_the_gateway_alone(queue: Queue) -> None:
    async def nothing() -> None:
        pass

    app: Any = queue.app
    other = SimpleNamespace(start=nothing, stop=nothing)
    vars(app).update({name: other for name in bossbot.PARTS if name != "queue"})
    app.queue.start = nothing  # it is open
    await app.start(gateway=False)
    assert app._feeding is None


def test_sentinels_say_where_redis_is(queue: Queue) -> None:
    redis: Any = module("redis_queue")
    config = redis.Config(
        url="redis://:hush@ignored/3", sentinels=["one:26379", "::1:5"], service="bot"
    )
    pool = redis.Redis(config).client.connection_pool
    assert pool.service_name == "bot"
    places = [one.get_connection_kwargs() for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in places] == [
        ("one", 26379),
        ("::1", 5),
    ]
    known = pool.connection_kwargs
    assert (known["password"], known["db"]) == ("hush", 3) and "host" not in known


# Redis that is not as it should be


async def test_redis_that_would_drop_jobs_is_refused(
    open_queue: Open,
    redis_server: RedisServer,  # noqa: F811
) -> None:
    queue: Any = await open_queue()
    client = queue.redis.client
    await client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StartError, match="noeviction"):
            await queue.redis.start()
        found = await module("redis_queue").check_machine(queue.config)
        assert found[0].fatal and "noeviction" in found[0].remedy
    finally:
        await client.config_set("maxmemory-policy", "noeviction")
    found = await module("redis_queue").check_machine(queue.config)
    assert [one.fatal for one in found] == [False] and "appendonly" in found[0].what
    await client.set(queue.redis.key("layout"), "2")
    with pytest.raises(StartError, match="layout 2"):
        await queue.redis.start()


async def test_redis_that_is_too_old_is_refused(queue: Queue) -> None:
    redis: Any = queue.redis  # type: ignore[attr-defined]

    async def info(section: str) -> dict[str, str]:
        return {"redis_version": "6.2.14"}

    redis.client.info = info
    with pytest.raises(StartError, match=r"6\.2\.14 is too old"):
        await redis.start()


async def test_full_redis_takes_no_new_link_and_ends_those_that_run(
    queue: Queue,
) -> None:
    redis: Any = queue
    await queue.add(make_job())
    job = await queue.claim("me", 60)
    assert job
    await redis.redis.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Refused, match="out of reach"):
            await queue.add(make_job())
        job.status = Status.COMPLETED
        assert await queue.save(job, 60) or True
        assert await queue.cancel(job.id) is None
    finally:
        await redis.redis.client.config_set("maxmemory", 0)
    stored = await queue.get(job.id)
    assert stored and stored.status is Status.COMPLETED


async def test_member_is_told_in_time_when_redis_hangs_or_is_gone(
    make_settings: MakeSettings, make_app: MakeApp
) -> None:
    with own_redis("--appendonly", "yes", "--appendfsync", "always") as server:
        settings = make_settings(redis_queue__url=server.url)
        app = make_app(settings, our_plugins(*PLUGINS))
        queue: Any = app.queue
        assert await module("redis_queue").check_machine(queue.config) == []
        assert queue.redis.within_s <= 5
        queue.tick_s, within_s = 0.05, queue.redis.within_s
        await queue.start()
        changes = aiter(queue.changes())
        assert await anext(changes) is None
        await queue.add(first := make_job())
        running = await queue.claim("me", 60)
        met_at = queue.redis.met_at
        for end, begin in (
            (server.pause, server.go_on),
            (server.kill, server.start),
        ):
            assert queue.redis.met_at == met_at  # not another one
            end()
            queue.redis.within_s = 0.5
            assert await queue.health() == "Redis is out of reach"
            # What is left in the socket may be carried out later, all the same.
            other = make_job()
            asks = queue.add(other), queue.list(), queue.cancel(other.id)
            async with asyncio.timeout(60):
                answers = await asyncio.gather(*asks, return_exceptions=True)
            for said in answers:
                assert isinstance(said, Refused) and "out of reach" in str(said)
            queue.redis.within_s = within_s
            begin()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(Refused):
                        assert await queue.keep(running, 60)
                        break
        # What has started anew may be a copy that is older than the job.
        assert queue.redis.met_at > met_at and queue.may_lag(first)
        assert not queue.may_lag(make_job(created_at=bossbot.now() + 60))
        running.status = Status.COMPLETED
        assert await queue.finish(running)
        async with asyncio.timeout(60):
            async for change in changes:
                if change and change.job.status is Status.COMPLETED:
                    break
            while queue._withdrawing:
                await asyncio.sleep(0.01)
        assert [job.id for job in await queue.list()] == [first.id]  # not those refused
        await app.stop()


def test_redis_py_is_not_imported_without_a_url(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import bossbot;"
        "data = Path(sys.argv[1]);"
        "settings = bossbot.Settings(data_dir=data, plugins_dir=data);"
        "app = bossbot.App(settings, Path(sys.argv[2]));"
        "app.plugins.load(); assert app.plugins.all['redis_queue'].off == '';"
        "assert 'redis' not in sys.modules;"
        "print(type(app.queue).__name__, type(app.facts).__name__)"
    )
    ours = our_plugins(*PLUGINS, "sqlite_queue", "sqlite_facts")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path, ours],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["SQLiteQueue", "SQLiteFacts"], done.stderr


async def test_workers_are_listed(
    queue: Queue, capsys: pytest.CaptureFixture[str]
) -> None:
    show: Any = module("redis_queue").show_workers
    assert await show(queue.app, None) == 0
    assert capsys.readouterr().out.startswith("No worker was seen in the last day. ")
    await queue.add(make_job())
    await queue.claim("one", 60)
    await queue.claim("two", 60)
    assert await show(queue.app, None) == 0
    version = bossbot.__version__
    one, two = sorted(capsys.readouterr().out.splitlines())
    assert one.startswith(f"one: version {version}, 1 of 5 downloads, seen 0.")
    assert two.startswith(f"two: version {version}, 0 of 5 downloads, seen 0.")
    redis: Any = queue.redis  # type: ignore[attr-defined]
    for name, slots in {"\x1b[2J" + 200 * "x": 9999 * "9", "wrong": "many"}.items():
        await redis.client.zadd(redis.key("workers"), {name: 4e9})
        await redis.client.hset(redis.key(f"worker:{name}"), "slots", slots)
    assert await show(queue.app, None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and len(max(lines, key=len)) < 200
    assert all(line.isprintable() for line in lines)


async def test_second_gateway_does_not_start_before_the_first_is_gone(
    queue: Queue,
) -> None:
    redis: Any = queue.redis  # type: ignore[attr-defined]
    key, again = redis.key("gateway"), redis.client
    await queue.stop()
    queue.app.has_gateway = True
    await again.set(key, "other\x1b[2J", ex=30)
    with pytest.raises(bossbot.BossbotError, match="other is the gateway") as caught:
        await queue.start()
    assert not isinstance(caught.value, StartError)  # a restart may help
    await again.delete(key)
    await queue.start()
    own = await again.get(key)
    assert own and 0 < await again.ttl(key) <= 30
    await queue.stop()
    assert not await again.exists(key)
    await again.set(key, own, ex=30)  # it was killed
    await queue.start()
    await again.set(key, "other")
    await queue.stop()
    assert await again.get(key) == "other"


async def test_worker_that_stops_has_no_slots_any_more(queue: Queue) -> None:
    assert await queue.claim("one", 60) is None
    await queue.stop()
    queue.app.has_gateway = True
    await queue.start()
    [worker] = await queue.workers()  # type: ignore[attr-defined]
    assert (worker.name, worker.slots) == ("one", 0)
    assert await queue.add(make_job()) == 1
    assert await queue.claim("one", 60)


@pytest.mark.parametrize(("error", "wait_s"), [(OutOfReach, 1), (Refused, 5)])
async def test_worker_asks_again_soon_where_the_queue_was_away(
    make_settings: MakeSettings, error: type[Refused], wait_s: float
) -> None:
    async def claim(*about: Any) -> None:
        raise error("not now")

    async def call(*about: Any) -> None:
        pass

    app: Any = SimpleNamespace(
        settings=make_settings(),
        stopping=asyncio.Event(),
        queue=SimpleNamespace(waits=lambda: True, claim=claim),
        plugins=SimpleNamespace(call=call),
        turn=contextlib.nullcontext,
    )
    worker = LocalWorker(app, WorkerConfig())
    worker.refused_s, clock = 5, asyncio.get_running_loop().time
    before = clock()
    await worker._claim()
    assert before + wait_s <= worker._ask_again_s <= clock() + wait_s


async def test_link_waits_where_no_worker_is(queue: Queue) -> None:
    queue.app.has_gateway = True
    assert await queue.add(make_job()) == 1
    assert await queue.claim("one", 60)
    assert await queue.add(make_job()) == 0
    queue.app.works = True
    assert await queue.add(make_job(guild_id=2, user_id=2)) == 0


SAID = [
    ("Error 111 connecting to redis:6379. Refused.", "Start Redis", True),
    ("", "does not answer. Start Redis, or correct [plugins.redis_queue]", True),
    ("Redis is loading the dataset in memory", "loading", True),
    ("invalid username-password pair", "not accept the password", False),
    ("Authentication required.", "%23", False),
    ("certificate verify failed: CERTIFICATE_VERIFY_FAILED", "ssl_ca_", False),
    ("You can't write against a read only replica.", "the primary", False),
    ("DENIED in protected mode: no password is set.", "requirepass", False),
    ("DB index is out of range", "no database of that number", False),
    ("User x has no permissions to run 'info'", "several-machines.md", False),
    ("WRONGTYPE Operation against a key", "prefix to another name", False),
    ("command not allowed when used memory > 'maxmemory'.", "Redis is full", False),
]


async def test_what_redis_says_at_the_start_is_explained(queue: Queue) -> None:
    for said, words, passes in SAID:
        error = module("redis_queue").unusable(redis.exceptions.RedisError(said))
        assert words in str(error) and ".." not in str(error), said
        assert isinstance(error, StartError) is not passes, said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "not the address of a Redis"),
        ("redis://:pa/ss@localhost", "%2F"),  # its password is not shown
        ("redis://localhost?nosuch=hush", "not the address"),
        ("redis://localhost?db=hush", "not the address"),
        ("redis://localhost/x", "a database that is not a number. Correct"),
        ("redis://localhost/1/hush", "set prefix"),
        ("rediss://localhost:1/-1", "a database that is not a number"),
        ("rediss://localhost?ssl_ca_certs=/nosuch", "/nosuch cannot be read. It is ss"),
    ],
)
def test_wrong_url_is_told_with_the_remedy(
    make_settings: MakeSettings, make_app: MakeApp, url: str, words: str
) -> None:
    app = make_app(make_settings(redis_queue__url=url), our_plugins(*PLUGINS))
    with pytest.raises(StartError, match=words) as caught:
        _ = app.queue
    assert "[plugins.redis_queue] url in config.toml" in str(caught.value)
    assert not re.search("pa/?ss@|'pa'|hush", str(caught.value))


def test_place_is_named_where_the_url_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: Queue
) -> None:
    redis: Any = module("redis_queue")
    monkeypatch.setattr(redis, "HERE", tmp_path)
    assert redis.place() == "[plugins.redis_queue] url in config.toml"
    file = tmp_path / ".env"
    file.write_text("# BOSS_BOT_PLUGINS__REDIS_QUEUE__URL=x")
    assert redis.place().endswith("in config.toml")
    file.write_text("A=b\nboss_bot_plugins__redis_queue__url = redis://x\n")
    assert redis.place() == "BOSS_BOT_PLUGINS__REDIS_QUEUE__URL in .env"
    monkeypatch.setenv("BOSS_BOT_PLUGINS__REDIS_QUEUE__URL", "redis://y")
    assert redis.place() == "BOSS_BOT_PLUGINS__REDIS_QUEUE__URL in the environment"


async def test_full_redis_lets_workers_start_and_old_rows_go(open_queue: Open) -> None:
    queue: Any = await open_queue()
    old = make_job()
    await queue.add(old)
    await queue.cancel(old.id)
    client = queue.redis.client
    queue.config = queue.config.model_copy(update={"keep_s": -60})
    await client.config_set("maxmemory", 1)
    try:
        sweeping = asyncio.create_task(queue._sweep())
        async with asyncio.timeout(60):
            while await queue.list():
                await asyncio.sleep(0.01)
        sweeping.cancel()
        await queue.redis.start()
    finally:
        await client.config_set("maxmemory", 0)
    await client.set(queue.redis.key("workers"), "not ours")
    with pytest.raises(StartError, match="prefix to another name"):
        await module("redis_queue").show_workers(queue.app, None)


def test_queue_that_is_off_by_a_mistake_is_not_replaced(
    home_without_engines: Home,
) -> None:
    done = home_without_engines.run(
        "run", env={"BOSS_BOT_PLUGINS__REDIS_QUEUE__PREFIX": "a b"}
    )
    assert done.returncode == 2
    assert "redis_queue is off: [plugins.redis_queue] prefix" in done.stderr
    assert "REDIS_QUEUE__URL" not in done.stderr


@pytest.mark.parametrize("command", ["worker", "workers"])
def test_half_a_bot_without_redis_is_refused(
    home_without_engines: Home, command: str
) -> None:
    done = home_without_engines.run(command)
    assert done.returncode == 2
    assert "Redis" in done.stderr or "REDIS" in done.stderr


# The budget of requests to Discord


async def test_processes_share_fifty_requests_a_second_and_edits_come_last(
    queue: Queue,
) -> None:
    redis: Any = queue

    async def turn(at_s: float, urgent: bool) -> tuple[float, bool]:
        redis.clock = repr(1000 + at_s)
        wait_s, again = await redis._call("turn", 45, "1" if urgent else "")
        return float(wait_s), bool(again)

    posts = [await turn(0, True) for _ in range(100)]
    assert not any(again for _, again in posts)
    waits = [wait_s for wait_s, _ in posts]
    assert sum(wait_s < 1e-6 for wait_s in waits) == 5 and waits == sorted(waits)
    assert sum(wait_s < 1 - 1e-6 for wait_s in waits) == 49
    assert [await turn(0, False), await turn(2, False)] == [
        (pytest.approx(100 / 45), True),
        (pytest.approx(100 / 45 - 2), True),
    ]
    assert await turn(3, False) == (0, False)  # when all posts are through
    wait_s, again = await turn(3, False)
    assert again and wait_s == pytest.approx(1 / 45)
    for wrong in ("nan", "inf", "x", "1e300"):  # whoever wrote it
        await redis.redis.client.set(redis.redis.key("budget"), wrong)
        wait_s, _ = await turn(3, True)
        assert 0 <= wait_s <= 5


async def test_edit_waits_its_turn_and_nothing_waits_for_redis(queue: Queue) -> None:
    redis: Any = queue
    asked, answers = list[Any](), [["0.001", 1], ["0", 1], ["0", 0]]

    async def call(verb: str, per_s: float, urgent: str) -> Any:
        asked.append(urgent)
        if not answers:
            raise AssertionError("asked")
        return answers.pop(0)

    redis._call = call
    await queue.take_turn(False)
    assert asked == ["", "", ""]
    redis._call = lambda *values: asyncio.sleep(60)
    redis.turn_s = 0.01
    await queue.take_turn(True)
    redis._call = call  # which fails, and is not asked
    await queue.take_turn(True)
    redis._no_turns_until, redis.edit_s = 0, 0
    answers.append(["0", 0])
    await queue.take_turn(False)  # one that has waited long is urgent
    assert asked == ["", "", "", "1"]


async def test_acl_of_the_documentation_is_enough(
    open_queue: Open,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
) -> None:
    page = (ROOT / "docs/several-machines.md").read_text("utf-8")
    acl = page.partition("`user bossbot on >password ")[2].partition("`")[0]
    queue: Any = await open_queue()
    rules = acl.replace("{bossbot}", f"{{{redis_prefix}}}").split()
    await queue.redis.client.execute_command(
        "ACL", "SETUSER", redis_prefix, "on", ">password", *rules
    )
    url = redis_server.url.replace("unix://", f"unix://{redis_prefix}:password@")
    queue = await open_queue(redis_queue__url=url)
    with pytest.raises(redis.exceptions.NoPermissionError):
        await queue.redis.client.config_get("dir")
    changes = aiter(queue.changes())
    assert await anext(changes) is None
    await queue.add(make_job())
    job = await queue.claim("me", 60)
    await queue.report(job, Progress("a"))
    assert await queue.recover("me", 60) == []
    assert [one.name for one in await queue.workers()] == ["me"]
    assert len(await queue.list()) == 1 and await queue.count(1) == (1, 0)
    assert [one.id async for one in queue.untold()] == [job.id]
    await queue.cancel(job.id)
    assert await queue.forget(1)
    await queue.stop()
    assert not [change async for change in changes if change is None]
    config = queue.config
    found = await module("redis_queue").check_machine(config)
    assert [one.fatal for one in found] == [False]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Of nobody, for 127.0.0.1, and its key: the files."""
    certificate, key = (str(tmp_path / name) for name in ("certificate", "key"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-subj", "/CN=redis", "-addext"),
            *("subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


async def test_tls_is_used_and_a_certificate_of_nobody_refused(
    make_settings: MakeSettings, make_app: MakeApp, certificate: tuple[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with own_redis(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", certificate[0], "--tls-key-file", certificate[1]),
    ):
        url = f"rediss://127.0.0.1:{port}"
        known = make_settings(redis_queue__url=f"{url}?ssl_ca_certs={certificate[0]}")
        app = make_app(known, our_plugins(*PLUGINS))
        await app.queue.start()
        assert await app.queue.add(make_job()) == 0
        await app.queue.stop()
        app = make_app(make_settings(redis_queue__url=url), our_plugins(*PLUGINS))
        unknown: Any = app.queue
        unknown.redis.client.set_retry(Retry(NoBackoff(), 0))
        with pytest.raises(StartError, match="certificate"):
            await unknown.start()
        await app.queue.stop()


async def test_nothing_is_left_of_what_is_forgotten(queue: Queue) -> None:
    redis: Any = queue.redis  # type: ignore[attr-defined]
    mine, other = make_job(user_id=31337), make_job(user_id=4)
    for job in (mine, other):
        await queue.add(job)
        await queue.report(job, Progress("a"))
        await queue.cancel(job.id)
    assert [job.id for job in await queue.forget(user_id=31337)] == [mine.id]
    left = ""
    async for key in redis.client.scan_iter(redis.key("*")):
        left += f"{key} "
        match await redis.client.type(key):
            case "hash":
                left += str(await redis.client.hgetall(key))
            case "stream" if not key.endswith("signals"):  # ids and statuses
                left += str(await redis.client.xrange(key))
            case "zset":
                left += str(await redis.client.zrange(key, 0, -1))
    assert other.url in left
    assert not [word for word in (mine.url, mine.id, "31337") if word in left]
