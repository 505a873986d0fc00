"""A gateway and workers with a queue in Redis: what is promised holds on them, too."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import SUPPORT_PLUGINS, make_job
from discord_support import BotProcess, Stage, link, module, until
from fake_discord import Message
from PIL import Image
from redis_support import (
    RedisServer,
    guarded_redis,
    own_redis,
    redis_prefix,  # noqa: F401
    redis_server,  # noqa: F401
)
from soak_machines import DURABLE, REFUSAL, jobs_in, soak_on

import bossbot
from bossbot import OutOfReach

pytest_plugins = ("discord_fixtures",)

OURS = ("redis_queue", "queue", "quota", "retention", "archive", "search", "privacy")
OURS += ("history", "stats")
LEASE_S = 2
JOB_ID = re.compile("[0-9a-f]{10}")


class Machines:
    """Processes of one bot, each with a data folder of its own."""

    def __init__(self, stage: Stage, redis: RedisServer) -> None:
        self.stage, self.redis = stage, redis
        self.settings = {
            "plugins__redis_queue__url": redis.url,
            "plugins__local_worker__lease_s": str(LEASE_S),
            "plugins__archive__meaning": "off",  # a model that takes 2 s to load
        }
        self.all: dict[str, BotProcess] = {}

    async def start(self, command: str, name: str = "", **more: str) -> BotProcess:
        name = name or command
        process = self.all.get(name) or BotProcess(self.stage, name)
        self.all[name] = process
        data = str(self.stage.folder / f"data of {name}")
        values = {"data_dir": data, **self.settings, **more}
        if command == "worker":
            await process.launch(command, **values)
            await process.logged(" working")
        else:
            await process.start(command, **values)
        return process


@contextlib.asynccontextmanager
async def machines_on(stage: Stage, server: RedisServer) -> AsyncIterator[Machines]:
    stage.add_plugin(*OURS)
    machines = Machines(stage, server)
    try:
        yield machines
    finally:
        for process in machines.all.values():
            await process.kill()


@pytest.fixture
async def machines(stage: Stage) -> AsyncIterator[Machines]:
    with own_redis(*DURABLE) as server:
        async with machines_on(stage, server) as machines:
            yield machines


def jobs_of(stage: Stage, name: str) -> set[str]:
    """The jobs that have a folder with a worker."""
    folders = os.walk(stage.folder / f"data of {name}")  # some may go meanwhile
    return {one for _, names, _ in folders for one in names if JOB_ID.fullmatch(one)}


def rows_of(stage: Stage, name: str, table: str) -> int:
    """How many rows a process has."""
    path = stage.folder / f"data of {name}" / "bossbot.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        row = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0])


async def test_whoever_dies_or_stops_all_is_posted_once_searched_and_forgotten(
    stage: Stage, machines: Machines
) -> None:
    gateway = await machines.start("gateway")
    first = await machines.start("worker", "one")
    (stage.media / "notes.txt").write_text("A pinch of cardamom.\n")
    await stage.says(f"$download {link('file=notes.txt')}")
    [message] = await stage.gets(1)
    said = none = "I found no posts here that match."
    async with asyncio.timeout(60):
        while said == none:  # its worker reads it a moment later
            after = (await stage.says("$search cardamom")).id
            said = (await stage.hears(after=after)).text
    assert "A pinch of cardamom." in said and str(message.id) in said

    kept = jobs_of(stage, "one")
    await stage.says(f"$download {link('hang=never', stage.image(4))}")
    await stage.hears("Downloading")
    [job] = jobs_of(stage, "one") - kept
    await stage.says(f"$queue cancel {job}")  # by the gateway, not the worker
    async with asyncio.timeout(60):
        while job in jobs_of(stage, "one"):
            await asyncio.sleep(0.02)

    # It dies before it hears that its last message has arrived.
    url = link("wait=all", *stage.images(11))
    after = (await stage.says(f"$download {url}")).id
    status = await stage.hears("Downloading", after=after)
    stage.fake.fault("upload", "hang", for_s=0.1)  # the first one gets through
    fault = stage.fake.fault("upload", "hang_answer")
    stage.open_gate("all")
    await stage.fake.wait_for(lambda: fault.hits)
    second = await machines.start("worker", "two")
    await first.kill()
    fault.release()
    await stage.gets(12)
    await stage.fake.wait_for(lambda: status.deleted)

    after = (await stage.says(f"$download {link('hang=dies', stage.image(12))}")).id
    await stage.hears("Downloading", after=after)
    third = await machines.start("worker", "three")
    await second.kill()
    await gateway.kill()
    machines.redis.kill()
    await asyncio.to_thread(machines.redis.start)
    stage.open_gate("dies")  # for the one that takes over within a lease
    await stage.gets(13)
    await machines.start("gateway")

    after = (await stage.says(f"$download {link('hang=stops', stage.image(13))}")).id
    await stage.hears("Downloading", after=after)
    third.terminate()
    assert await third.ended() == 0
    stage.open_gate("stops")
    await machines.start("worker", "four")
    messages = await stage.gets(14)
    found = [file.data for one in messages for file in one.files]
    wanted = [stage.bytes_of(step) for step in ("notes.txt", *stage.images(13))]
    assert sorted(found) == sorted(wanted)
    assert found[-2:] == wanted[-2:]

    for table in ("history", "stats_jobs"):  # which the gateway keeps for all
        assert rows_of(stage, "gateway", table) and not rows_of(stage, "four", table)
    assert jobs_of(stage, "four")
    await stage.says("$privacy forget")  # to the gateway, which has no files
    async with asyncio.timeout(60):
        while jobs_of(stage, "four"):
            await asyncio.sleep(0.02)


async def test_workers_ask_the_gateway_what_is_here_and_tell_it_what_files_look_like(
    stage: Stage, machines: Machines
) -> None:
    stage.add_plugin("already_here", "similar_notice")
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    guilds = stage.folder / "data of gateway" / "guilds"
    guilds.mkdir(parents=True)
    wanted = "[similar_notice]\nsimilar_notice = true\n"
    (guilds / f"{stage.fake.guild.id}.toml").write_text(wanted)
    spots = Image.effect_noise((64, 64), 100).resize((320, 240))
    spots.save(stage.media / "spots.png")
    url = link("file=spots.png")
    leads = stage.facts("leads", leads_to=url)
    steps = [leads, "wait=never"], ["wait=gate", leads]
    short = [link(*one, stage.image(2)) for one in steps]
    gateway = await machines.start("gateway")
    await stage.says(f"$download {url}")
    status = await stage.hears("No worker is running now. Your link waits")
    await machines.start("worker")
    [post] = await stage.gets(1)
    await stage.fake.wait_for(lambda: status.deleted)
    asked = await stage.says(f"$download {short[0]}")
    told = await stage.hears("It is here", address(post))
    assert told.replied_to is asked
    await stage.says(f"$download {link('file=spots.png', 'sleep=0')}")
    [_, same] = await stage.gets(2)
    notice = await stage.hears("Something like this was posted", address(post))
    assert notice.replied_to is same
    # The gateway ends before it hears that its message is there. Without an answer, the
    # link is posted.
    fault = stage.fake.fault("send", "hang_answer")
    asked = await stage.says(f"$download {short[1]}")
    status = await stage.hears("Download started", after=asked.id)
    await gateway.kill()
    with contextlib.closing(redis.Redis.from_url(machines.redis.url)) as known:
        assert known.delete("{bossbot}:gateway")  # as after 30 seconds
    fault.release()
    stage.open_gate("gate")
    assert len(await stage.gets(3)) == 3
    await machines.start("gateway")
    await stage.fake.wait_for(lambda: status.deleted)


def address(message: Message) -> str:
    guild = message.channel.guild
    return f"/{guild and guild.id}/{message.channel.id}/{message.id}"


async def test_replica_takes_over_and_nothing_is_lost_or_comes_twice(
    stage: Stage,
) -> None:
    with guarded_redis(*DURABLE) as servers:
        async with machines_on(stage, servers.primary) as machines:
            place = f"127.0.0.1:{servers.sentinel.port}"
            machines.settings |= {
                "plugins__redis_queue__url": "redis://sentinel/0",
                "plugins__redis_queue__sentinels": json.dumps([place]),
                "plugins__redis_queue__service": "bot",
            }
            await machines.start("gateway")
            await machines.start("worker")
            urls = [link("wait=gate", step) for step in stage.images(2)]
            await stage.says(f"$download {urls[0]}")
            await stage.hears("Downloading")
            with contextlib.closing(
                redis.Redis.from_url(servers.primary.url, socket_timeout=60)
            ) as known:
                assert known.wait(1, 60_000) == 1
            servers.primary.kill()
            stage.open_gate("gate")  # it is posted once its row can be stored
            await stage.gets(1)
            said = REFUSAL
            while REFUSAL in said:  # until the gateway, too, has heard of it
                after = (await stage.says(f"$download {urls[1]}")).id
                said = (await stage.hears(after=after)).text
            messages = await stage.gets(2)
            await stage.fake.wait_for(lambda: stage.requested("delete") == 2)
        rows = await asyncio.to_thread(jobs_in, servers.replica.url)
    found = [file.data for one in messages for file in one.files]
    assert found == [stage.bytes_of(step) for step in stage.images(2)]
    assert len(stage.posted()) == 2
    assert [row["status"] for row in rows] == ["completed"] * 2


async def test_two_versions_at_once_work_on_the_same_jobs(
    stage: Stage, machines: Machines
) -> None:
    later = stage.folder / "later plugins"
    later.mkdir()
    for name in ("toy.py", "quick.py"):
        (later / name).symlink_to(stage.plugins / name)
    shutil.copy(Path(__file__).parent / "plugins" / "newer.py", later)
    newer = {"plugins_dir": str(later)}
    gateway = await machines.start("gateway", **newer)
    first = await machines.start("worker", "newer", **newer)
    steps = ["hang=gate", *stage.images(11)]
    await stage.says(f"$download {link(*steps)}")
    await stage.hears("Downloading")
    await first.kill()
    await machines.start("worker", "older")  # takes it over
    stage.open_gate("gate")
    await stage.gets(11)
    await gateway.kill()
    gateway = await machines.start("gateway")  # of the older version
    await machines.all["older"].kill()
    await machines.start("worker", "newer", **newer)
    await stage.says(f"$download {link(stage.image(12))}")
    messages = await stage.gets(12)
    await stage.fake.wait_for(lambda: stage.requested("delete") == 2)
    found = [file.data for one in messages for file in one.files]
    assert found == [stage.bytes_of(step) for step in stage.images(12)]

    async def ended() -> bool:
        rows = await asyncio.to_thread(jobs_in, machines.redis.url)
        states = [(row["status"], row["newer"], "told" in row) for row in rows]
        return states == [("completed", "x", True)] * 2

    await until(ended)
    assert "is wrong" not in "".join(one.output() for one in machines.all.values())


async def test_random_kills_and_pauses_of_all_processes_lose_nothing(
    stage: Stage,
) -> None:
    """For a few seconds; by hand, ``tests/tools/soak_machines.py`` does it for hours."""
    seed = secrets.randbelow(10**6)
    print("seed", seed)  # shown when it fails; the order of the harm comes again by it
    with own_redis(*DURABLE) as server:
        done = await soak_on(stage, server, 3, seed, ("one", "two"), LEASE_S, pace=6)
    print(dict(done))
    assert done["acknowledged"] and done["lost"] == done["answered and lost"] == 0
    assert done["posted twice"] == done["not as pasted"] == 0
    assert done["given up and not told"] == 0


async def test_owner_sees_the_workers_and_nobody_else(
    stage: Stage,
    redis_server: RedisServer,  # noqa: F811
    redis_prefix: str,  # noqa: F811
    logged: list[str],
) -> None:
    stage.add_plugin("redis_queue", "queue")
    fake, asked = stage.fake, list[Any]()

    async def out_of_reach(*arguments: Any) -> bool:
        asked.append(arguments)
        raise OutOfReach("away")

    async def there_at_last() -> bool:
        asked.pop()
        return not asked or await out_of_reach(asked.pop())

    async def seen_by(user_id: int) -> str:
        asked = await fake.slash(stage.channel_id, "queue workers", {}, user_id)
        return (await fake.answered(asked)).text

    url = {"redis_queue__url": redis_server.url, "redis_queue__prefix": redis_prefix}
    async with stage.bot(**url) as bot:
        name = bot.app.worker.name  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            while not await bot.app.queue.workers():  # it has claimed nothing yet
                await asyncio.sleep(0.02)
        turns = list[bool]()

        async def take_turn(urgent: bool) -> None:
            turns.append(urgent)

        bot.app.queue.take_turn = take_turn
        answer = await seen_by(fake.owner.id)
        assert answer.startswith(f"{name}: version {bossbot.__version__}, 0 of 5 ")
        assert await seen_by(fake.member.id) == "Only the bot's owner may do that."
        await stage.says(f"$download {link(stage.image())}")  # the same in one process
        [message] = await stage.gets(1)
        assert message.files[0].data == stage.bytes_of(stage.image())
        assert turns.count(True) >= 2  # its status message, and the file
        async with asyncio.timeout(60):
            while False not in turns:  # the status message is edited
                await asyncio.sleep(0.01)
        queue: Any = bot.app.queue
        kept = queue.claim, queue.add
        queue.claim = queue.add = out_of_reach
        await stage.says(f"$download {link(stage.image(2))}")
        await stage.hears("I cannot take links now: the queue is out of reach or full.")
        async with asyncio.timeout(60):
            while len(asked) < 4:
                await asyncio.sleep(0.01)
        queue.claim, queue.add = kept
        asked[3:] = []
        assert await module("_insist").insist(there_at_last, make_job(), 0)
        assert [
            line for line in logged if ": away" in line and "DEBUG" not in line
        ] == [
            "WARNING no job is started now: away",
            "ERROR the queue does not answer: away",
        ]
    async with stage.bot():
        assert "this machine does all the work" in await seen_by(fake.owner.id)
