"""Kills a gateway, its workers and Redis at random while links are pasted, and counts.

PYTHONPATH=.:tests:tests/support python tests/tools/soak_machines.py --minutes 10
"""

import argparse
import asyncio
import contextlib
import random
import signal
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import redis
from conftest import share_plugins_in
from discord_support import BotProcess, Stage, link
from fake_discord import FakeDiscord, Message
from redis_support import RedisServer, own_redis

WORKERS = ("one", "two", "three")
LEASE_S = 4
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
REFUSAL = "I cannot take links now"


def jobs_in(url: str) -> list[dict[str, str]]:
    """All that a member was told of."""
    with contextlib.closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        keys = client.scan_iter("{bossbot}:job:*", 1000)
        return [client.hgetall(key) for key in keys]


async def soak(minutes: float, seed: int) -> Counter[str]:
    """What became of the links, and what was done to the bot."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "media").mkdir()
    (folder / "stage").mkdir()
    share_plugins_in(folder / "ours")
    async with FakeDiscord() as fake:
        with own_redis(*DURABLE) as server:
            stage = Stage(fake, folder / "media", folder / "stage")
            done = await soak_on(stage, server, 60 * minutes, seed)
    print(folder)
    return done


async def soak_on(
    stage: Stage,
    server: RedisServer,
    seconds: float,
    seed: int,
    workers: Sequence[str] = WORKERS,
    lease_s: float = LEASE_S,
    pace: float = 1,
) -> Counter[str]:
    """The same on a stage, with a Redis. What is done to the bot comes in a random order,
    each thing as often; a larger ``pace`` is quicker."""
    chance, done = random.Random(seed), Counter[str]()
    stage.add_plugin("redis_queue")
    processes = {n: BotProcess(stage, n) for n in ("gateway", *workers)}

    async def start(name: str) -> None:
        await processes[name].launch(
            "gateway" if name == "gateway" else "worker",
            data_dir=str(stage.folder / f"data of {name}"),
            plugins__redis_queue__url=server.url,
            plugins__local_worker__lease_s=str(lease_s),
        )

    for name in processes:
        await start(name)
    await processes["gateway"].logged("connected as")
    ends = time.monotonic() + seconds
    pasted, contents = dict[str, Message](), set[bytes]()

    async def paste() -> None:
        number = 0
        while time.monotonic() < ends:
            number += 1
            image = stage.padded(20_000 + number, 1)
            url = link("sleep=0.3", image)
            pasted[url] = await stage.says(f"$download {url}")
            contents.add(stage.bytes_of(image))
            await asyncio.sleep(chance.uniform(0.2, 1) / pace)

    async def harm() -> None:
        ways = list[str]()
        while time.monotonic() < ends:
            if not ways:
                ways = [*workers, *workers, "gateway", "redis", "pause"]
                chance.shuffle(ways)
            await asyncio.sleep(chance.uniform(1, 4) / pace)
            what = ways.pop()
            done[f"{what} killed" if what != "pause" else "paused"] += 1
            if what == "redis":
                server.kill()
                await asyncio.sleep(chance.uniform(0.1, 2) / pace)
                await asyncio.to_thread(server.start)
            elif what == "pause":
                process = processes[chance.choice(workers)].process
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(lease_s + 1 / pace)
                process.send_signal(signal.SIGCONT)
            else:
                await processes[what].kill()
                await asyncio.sleep(chance.uniform(0, 1) / pace)
                await start(what)

    try:
        await asyncio.gather(paste(), harm())
        rows: list[dict[str, str]] = []
        for _ in range(1200):  # what is left, and is not told
            rows = await asyncio.to_thread(jobs_in, server.url)
            if all(row.get("told") for row in rows):
                break
            await asyncio.sleep(0.1)
        posted = Counter(f.data for m in stage.posted() for f in m.files)
        ended = Counter(row["status"] for row in rows)
        replies = defaultdict[int, list[str]](list)
        for message in stage.said():
            if message.replied_to and not message.files:
                replies[message.replied_to.id].append(message.text)
        taken = {row["url"] for row in rows}
        for url, request in pasted.items():
            said = " ".join(replies[request.id])
            done["refused"] += REFUSAL in said
            done["not heard"] += not said and url not in taken
            lost = said and REFUSAL not in said and url not in taken
            done["answered and lost"] += bool(lost)
        done["pasted"], done["acknowledged"] = len(pasted), len(rows)
        done["posted"], done["failed"] = len(posted), ended["failed"]
        done["posted twice"] = sum(n - 1 for n in posted.values())
        done["not as pasted"] = len(posted.keys() - contents)
        done["lost"] = len(rows) - len(posted) - ended["failed"]
        done["given up and not told"] = done["end not shown"] = 0
        for row in rows:
            said = " ".join(replies[pasted[row["url"]].id])
            if row["status"] != "completed":
                print(row["status"], row.get("error"), row.get("detail"))
                done["given up and not told"] += row.get("error", "?") not in said
            elif REFUSAL in said:
                done["refused and posted"] += 1
            elif said and "Done in" not in said:  # a status message that stayed
                done["end not shown"] += 1
                print(row["id"], repr(said))
    finally:
        for process in processes.values():
            await process.kill()
    return done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    done = asyncio.run(soak(arguments.minutes, arguments.seed))
    for name, number in sorted(done.items()):
        print(f"{number:>6} {name}")


if __name__ == "__main__":
    main()
