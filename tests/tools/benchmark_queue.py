"""Measures the queue in Redis, with SAQ as the yardstick where it is installed.

    PYTHONPATH=.:tests:tests/support python tests/tools/benchmark_queue.py

Each figure is of one machine that also runs Redis; ratios hold elsewhere, absolutes do not.
"""

import asyncio
import contextlib
import importlib.util
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from conftest import link_plugins, make_job
from redis_support import own_redis

from bossbot import App, Settings, Status, prepare_data

PROCESSES, SLOTS, JOBS = 4, 5, 4000
LISTPACK = ("--hash-max-listpack-value", "1024")  # as docs/several-machines.md says


def open_app(url: str) -> App:
    folder = Path(tempfile.mkdtemp())
    (folder / "own").mkdir()
    ours = link_plugins(folder / "ours", "redis_queue", "platform_router")
    settings = Settings(
        data_dir=folder / "data",
        plugins_dir=folder / "own",
        max_concurrent_downloads=SLOTS,
        max_concurrent_per_guild=100,
        max_queue_size=10**6,
        plugins={"redis_queue": {"url": url}},
    )
    app = App(settings, ours)
    app.plugins.load()
    prepare_data(settings.data_dir)
    app.has_gateway, app.works = False, True
    return app


def work(url: str, name: str, ready: Any, times: Any) -> None:
    """Claim, save and finish until nothing is left; then say when each job ended."""
    ended = []

    async def one(queue: Any) -> None:
        while job := await queue.claim(name, 60):
            job.status = Status.UPLOADING
            await queue.save(job, 60)
            job.status = Status.COMPLETED
            await queue.finish(job)
            ended.append(time.time())

    async def main() -> None:
        app = open_app(url)
        ready.wait()
        await asyncio.gather(*(one(app.queue) for _ in range(SLOTS)))

    asyncio.run(main())
    times.put(ended)


def saq_queue(url: str) -> Any:
    from redis.asyncio import Redis
    from saq.queue.redis import RedisQueue

    return RedisQueue(Redis.from_url(url))


def work_saq(url: str, name: str, ready: Any, times: Any) -> None:
    import saq

    ended = []

    async def nothing(ctx: Any) -> None:
        ended.append(time.time())

    async def main() -> None:
        queue = saq_queue(url)
        ready.wait()
        worker = saq.Worker(queue, functions=[("nothing", nothing)], concurrency=SLOTS)
        task = asyncio.create_task(worker.start())
        while await queue.count("incomplete"):
            await asyncio.sleep(0.02)
        await worker.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    times.put(ended)


def jobs_a_second(target: Any, url: str) -> float:
    """From the tenth job that ends to the last one."""
    context = multiprocessing.get_context("spawn")
    times, ready = context.Queue(), context.Barrier(PROCESSES)
    names = [str(number) for number in range(PROCESSES)]
    processes = [
        context.Process(target=target, args=(url, n, ready, times)) for n in names
    ]
    for process in processes:
        process.start()
    ended = sorted(at for _ in processes for at in times.get())
    for process in processes:
        process.join()
    return (len(ended) - 10) / (ended[-1] - ended[9])


async def fill(app: App, count: int) -> list[float]:
    """Add jobs of 1,000 guilds; returns how many milliseconds each took."""
    took = []
    for number in range(count):
        job = make_job(guild_id=number % 1000, user_id=number, same=f"{number:032x}")
        began = time.perf_counter()
        await app.queue.add(job)
        took.append((time.perf_counter() - began) * 1000)
    return took


async def fill_saq(url: str, count: int) -> list[float]:
    queue, took = saq_queue(url), list[float]()
    for _ in range(count):
        began = time.perf_counter()
        await queue.enqueue("nothing")
        took.append((time.perf_counter() - began) * 1000)
    await queue.disconnect()
    return took


async def fill_many(app: App, count: int) -> None:
    for start in range(0, count, 200):
        del start
        await asyncio.gather(*(fill(app, 10) for _ in range(20)))


async def lines(url: str) -> None:
    """What a claim takes inside Redis, and memory, with more and more waiting."""
    app, waiting = open_app(url), 0
    queue: Any = app.queue
    client = queue.redis.client
    before = (await client.info("memory"))["used_memory"]
    for size in (1_000, 10_000, 100_000):
        await fill_many(app, size - waiting)
        waiting = size
        await client.delete(*[queue.redis.key(n) for n in ("changes", "signals")])
        used = (await client.info("memory"))["used_memory"]
        await client.config_resetstat()
        for _ in range(200):
            job = await queue.claim("me", 60)
            await queue.release(job)
        stats = await client.info("commandstats")
        took = stats["cmdstat_evalsha"]["usec_per_call"]
        print(
            f"{size:>7} waiting: {took:.0f} us for a claim or a release inside Redis, "
            f"{(used - before) / size:.0f} bytes each"
        )


def main() -> None:
    for aof in (("no",), ("yes", "--appendfsync", "always")):
        print("appendonly", *aof)
        for kind in ["ours", "SAQ"] if importlib.util.find_spec("saq") else ["ours"]:
            with own_redis("--appendonly", *aof, *LISTPACK) as server:
                if kind == "ours":
                    took = asyncio.run(fill(open_app(server.url), JOBS))
                    rate = jobs_a_second(work, server.url)
                else:
                    took = asyncio.run(fill_saq(server.url, JOBS))
                    rate = jobs_a_second(work_saq, server.url)
                p99 = statistics.quantiles(took, n=100)[98]
                print(
                    f"  {kind}: {rate:.0f} jobs a second, add "
                    f"{statistics.median(took):.2f} ms, 99 of 100 within {p99:.1f} ms"
                )
    with own_redis(*LISTPACK) as server:
        asyncio.run(lines(server.url))


if __name__ == "__main__":
    main()
