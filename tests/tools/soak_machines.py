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
from collections import Counter
from pathlib import Path

import redis
from conftest import share_plugins_in
from discord_support import BotProcess, Stage, link
from fake_discord import FakeDiscord
from redis_support import own_redis

from bossbot import TERMINAL_STATUSES

WORKERS = ("one", "two", "three")
LEASE_S = 4


def jobs_in(url: str) -> list[dict[str, str]]:
    """All that a member was told of."""
    with contextlib.closing(redis.Redis.from_url(url, decode_responses=True)) as client:
        keys = client.scan_iter("{bossbot}:job:*", 1000)
        return [client.hgetall(key) for key in keys]


async def soak(minutes: float, seed: int) -> Counter[str]:
    """What became of the links, and what was done to the bot."""
    chance, done = random.Random(seed), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "media").mkdir()
    (folder / "stage").mkdir()
    share_plugins_in(folder / "ours")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    async with FakeDiscord() as fake:
        with own_redis(*durable) as server:
            stage = Stage(fake, folder / "media", folder / "stage")
            stage.keep_status_messages()
            stage.add_plugin("redis_queue")
            processes = {n: BotProcess(stage, n) for n in ("gateway", *WORKERS)}

            async def start(name: str) -> None:
                await processes[name].launch(
                    "gateway" if name == "gateway" else "worker",
                    data_dir=str(stage.folder / f"data of {name}"),
                    plugins__redis_queue__url=server.url,
                    plugins__local_worker__lease_s=str(LEASE_S),
                )

            for name in processes:
                await start(name)
            await processes["gateway"].logged("connected as")
            ends, pasted = time.monotonic() + 60 * minutes, list[bytes]()

            async def paste() -> None:
                number = 0
                while time.monotonic() < ends:
                    number += 1
                    image = stage.padded(20_000 + number, 1)
                    await stage.says(f"$download {link('sleep=0.3', image)}")
                    pasted.append(stage.bytes_of(image))
                    await asyncio.sleep(chance.uniform(0.2, 1))

            async def harm() -> None:
                while time.monotonic() < ends:
                    await asyncio.sleep(chance.uniform(1, 4))
                    what = chance.choice(
                        [*WORKERS, *WORKERS, "gateway", "redis", "pause"]
                    )
                    done[f"{what} killed" if what != "pause" else "paused"] += 1
                    if what == "redis":
                        server.kill()
                        await asyncio.sleep(chance.uniform(0.1, 2))
                        await asyncio.to_thread(server.start)
                    elif what == "pause":
                        process = processes[chance.choice(WORKERS)].process
                        process.send_signal(signal.SIGSTOP)
                        await asyncio.sleep(LEASE_S + 1)
                        process.send_signal(signal.SIGCONT)
                    else:
                        await processes[what].kill()
                        await asyncio.sleep(chance.uniform(0, 1))
                        await start(what)

            await asyncio.gather(paste(), harm())
            rows: list[dict[str, str]] = []
            for _ in range(240):  # what is left
                rows = await asyncio.to_thread(jobs_in, server.url)
                if all(row["status"] in TERMINAL_STATUSES for row in rows):
                    break
                await asyncio.sleep(0.5)
            posted = Counter(f.data for m in stage.posted() for f in m.files)
            ended = Counter(row["status"] for row in rows)
            done["pasted"], done["acknowledged"] = len(pasted), len(rows)
            done["posted"], done["failed"] = len(posted), ended["failed"]
            done["posted twice"] = sum(n - 1 for n in posted.values())
            done["not as pasted"] = len(posted.keys() - {*pasted})
            done["lost"] = len(rows) - len(posted) - ended["failed"]
            for row in rows:
                if row["status"] != "completed":
                    print(row["status"], row.get("error"), row.get("detail"))
            for process in processes.values():
                await process.kill()
    print(folder)
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
