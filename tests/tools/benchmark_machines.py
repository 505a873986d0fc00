"""Measures the queue in Redis beside SAQ, and a bot on several machines beside one
process; run it by hand:

    PYTHONPATH=.:tests:tests/support python tests/tools/benchmark_machines.py [queue bots]

SAQ is installed into a temporary folder. All run by turns on one machine that also runs
Redis: ratios hold elsewhere, absolute figures do not.
"""

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

import media
from benchmark import LINKS, SITE, Bot, show, trusting
from conftest import ROOT, link_plugins, make_job
from fake_discord import FakeDiscord, Message
from loguru import logger
from redis_support import own_redis
from sites import Answer, Sites

from bossbot import App, Settings, Status, prepare_data

PROCESSES, SLOTS, JOBS, TURNS = 4, 5, 4000, 3
LISTPACK = ("--hash-max-listpack-value", "1024")  # as docs/several-machines.md says
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")  # the same
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
WORKERS, SLOW_LINKS, SLOW_S = 3, 60, 4


# The queue alone


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
            await asyncio.sleep(0.05)
        await worker.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())
    times.put(ended)


async def fill(app: App, count: int, first: int = 0) -> list[float]:
    """Add jobs of 1,000 guilds; returns how many milliseconds each took."""
    took = []
    for number in range(first, first + count):
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


def fill_and_say(kind: str, url: str, times: Any) -> None:
    if kind == "SAQ":
        times.put(asyncio.run(fill_saq(url, JOBS)))
    else:
        times.put(asyncio.run(fill(open_app(url), JOBS)))


def jobs_a_second(kind: str, url: str) -> tuple[float, list[float]]:
    """Once all processes run, without the first tenth; and what each `add` took."""
    context = multiprocessing.get_context("spawn")
    times, ready = context.Queue(), context.Barrier(PROCESSES)
    filling = context.Process(target=fill_and_say, args=(kind, url, times))
    filling.start()
    took = times.get()
    filling.join()
    target = work_saq if kind == "SAQ" else work
    processes = [
        context.Process(target=target, args=(url, str(number), ready, times))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    ended = sorted(at for _ in processes for at in times.get())
    for process in processes:
        process.join()
    first = len(ended) // 10
    return (len(ended) - first) / (ended[-1] - ended[first]), took


@contextlib.contextmanager
def importing(folder: Path) -> Iterator[None]:
    """Processes that are started meanwhile find what is in a folder first."""
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def compare_with_saq(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder]
    subprocess.run([*command, "saq[redis]"], check=True)
    for name, options in {
        "appendfsync always": ALWAYS,
        "appendfsync everysec": EVERYSEC,
        "no append-only file": ("--appendonly", "no"),
    }.items():
        rates: dict[str, list[float]] = {"ours": [], "SAQ": []}
        adds: dict[str, list[float]] = {"ours": [], "SAQ": []}
        for _ in range(TURNS):
            for kind, those in rates.items():
                with contextlib.ExitStack() as stack:
                    server = stack.enter_context(own_redis(*options, *LISTPACK))
                    if kind == "SAQ":
                        stack.enter_context(importing(folder))
                    rate, took = jobs_a_second(kind, server.url)
                those.append(rate)
                adds[kind] += took
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(*rates.values(), strict=True)
        )
        ours, theirs = (statistics.median(some) for some in rates.values())
        text = f"{ours:.0f}, SAQ {theirs:.0f}: {ratio:.2f} to 1"
        show(f"jobs a second, {name}", text, "1 to 1")
        ours, theirs = (statistics.median(some) for some in adds.values())
        late = statistics.quantiles(adds["ours"], n=100)[98]
        text = f"{ours:.2f} ms, 99 of 100 within {late:.1f} ms; SAQ {theirs:.2f} ms"
        show(f"add, median, {name}", text, "2 ms")


async def fill_many(app: App, waiting: int, size: int) -> None:
    for first in range(waiting, size, 200):
        await asyncio.gather(*(fill(app, 10, first + 10 * n) for n in range(20)))


async def used_us(client: Any) -> float:
    """What Redis has had of a processor."""
    used = await client.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"]) * 1e6


async def long_lines(url: str) -> None:
    """What a claim takes Redis, and memory, with more and more waiting."""
    app, waiting, took = open_app(url), 0, dict[int, float]()
    queue: Any = app.queue
    client = queue.redis.client
    before = (await client.info("memory"))["used_memory"]
    for size in (1_000, 10_000, 100_000):
        await fill_many(app, waiting, size)
        waiting = size
        await client.delete(*[queue.redis.key(n) for n in ("changes", "signals")])
        used = (await client.info("memory"))["used_memory"] - before
        times = []
        for _ in range(5):
            cpu_us = await used_us(client)
            jobs = [await queue.claim(f"{n // SLOTS}", 60) for n in range(100)]
            times.append((await used_us(client) - cpu_us) / len(jobs))
            for job in jobs:
                await queue.release(job)
        took[size] = statistics.median(times)
        goal = {1_000: "", 10_000: ""}.get(size, f"{2 * took[1_000]:.0f} us")
        show(f"what a claim takes Redis, {size} waiting", f"{took[size]:.0f} us", goal)
        show(f"memory of each, {size} waiting", f"{used / size:.0f} B", "1000 B")


# Whole bots


class Machines(Bot):
    """A gateway and workers, with a queue in Redis."""

    workers = 1

    async def start(self, *command: str) -> None:
        await super().start("gateway")
        self.others = [
            await self.run("worker", BOSS_BOT_DATA_DIR=str(self.folder / f"data{n}"))
            for n in range(self.workers)
        ]

    async def stop(self) -> None:
        for process in self.others:
            process.terminate()
            await process.wait()
        await super().stop()


async def bots(folder: Path, workers: int, stack: contextlib.AsyncExitStack) -> Any:
    """One process, and a gateway with workers; both have had their first links."""
    server = stack.enter_context(own_redis(*ALWAYS, *LISTPACK))
    both = list[Bot]()
    for kind in (Bot, Machines):
        place = folder / kind.__name__
        place.mkdir(parents=True)
        fake = await stack.enter_async_context(FakeDiscord())
        bot = kind(ROOT, place, fake)
        bot.environment = {"BOSS_BOT_MAX_CONCURRENT_PER_GUILD": f"{workers * SLOTS}"}
        if isinstance(bot, Machines):
            bot.workers = workers
            bot.environment["BOSS_BOT_PLUGINS__REDIS_QUEUE__URL"] = server.url
        both.append(bot)
        await bot.start()
        stack.push_async_callback(bot.stop)
        for link in LINKS.values():
            asked = [await bot.ask(link) for _ in range(4 * workers)]
            for one in asked:
                await bot.waited_ms(one, True)
    return both


async def one_link(folder: Path) -> None:
    """From paste to post, in one process and through a worker."""
    async with contextlib.AsyncExitStack() as stack:
        both = await bots(folder, 1, stack)
        for _ in range(20):
            for bot in both:
                for kind, link in LINKS.items():
                    await bot.ask_and_wait(kind, link)
    for kind in LINKS:
        one, two = (bot.times[f"{kind} post"] for bot in both)
        ratio = statistics.median(two) / statistics.median(one)
        text = f"{statistics.median(two):.0f} ms, in one process "
        text += f"{statistics.median(one):.0f} ms: {ratio:.2f} times"
        show(f"a link through a worker, {kind}", text, "1.5 times")


async def slow_site(folder: Path, sites: Sites) -> None:
    """Links whose site answers late, to one process and to three workers."""
    picture = media.padded_image(folder, 50_000)
    sites.serve(f"{SITE}/slow/*", Answer(picture, delay_s=SLOW_S))
    took: dict[type, list[float]] = {Bot: [], Machines: []}
    async with contextlib.AsyncExitStack() as stack:
        both = await bots(folder, WORKERS, stack)
        for _ in range(TURNS):
            for bot in both:
                began_s, asked = time.perf_counter(), list[Message]()
                while len(asked) < SLOW_LINKS:
                    asked += await bot.all_ask(f"{SITE}/slow/{{}}.jpg")
                for one in asked:
                    wanted = partial(bot.replies, one, True)
                    await bot.fake.wait_for(wanted, 120)
                took[type(bot)].append(time.perf_counter() - began_s)
    one, three = (statistics.median(some) for some in took.values())
    text = f"{three:.0f} s, one process {one:.0f} s: {one / three:.1f} times as fast"
    show(f"{SLOW_LINKS} links to a slow site, {WORKERS} workers", text, "2 times")


async def whole_bots(folder: Path) -> None:
    logger.remove()
    with Sites() as sites:
        os.environ |= trusting(sites, folder)
        sites.serve(f"{SITE}/picture/*", media.padded_image(folder, 50_000))
        sites.serve(f"{SITE}/video/*", media.padded_video(folder, 50_000))
        await one_link(folder / "one")
        await slow_site(folder / "slow", sites)


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's bot has it
    what = sys.argv[1:] or ["queue", "bots"]
    with tempfile.TemporaryDirectory() as scratch:
        if "queue" in what:
            compare_with_saq(Path(scratch) / "saq")
            with own_redis(*LISTPACK) as server:
                asyncio.run(long_lines(server.url))
        if "bots" in what:
            asyncio.run(whole_bots(Path(scratch)))


if __name__ == "__main__":
    main()
