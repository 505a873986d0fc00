"""Measures what the README's table shows; run it by hand: python tests/tools/benchmark.py

Everything is real: the engines, the fork server, discord.py. The media come from a
server on loopback, Discord is tests/support/fake_discord.py. Ratios are taken in one run,
since machines differ and are noisy.
"""

import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
sys.path[:0] = [str(ROOT), str(SUPPORT), str(ROOT / "tests" / "tools")]

import media
from fake_discord import FakeDiscord, Message
from loguru import logger
from rich.console import Console
from rich.table import Table
from sites import Answer, Sites
from slow_disk import slow_disk

from bossbot import App, BossBot, Job, Progress, Settings, prepare_data

REPEAT = 15
COMMANDS = {
    "gallery-dl": ["-m", "gallery_dl", "--config-ignore", "-q", "-D"],
    "yt-dlp": ["-m", "yt_dlp", "--ignore-config", "-q", "--no-cache-dir", "-P"],
}
Row = tuple[str, str, str]


def make_app(folder: Path, **values: object) -> App:
    own = folder / "plugins"
    own.mkdir(parents=True)
    runner = {"allow_private_addresses": True}
    app = App(
        Settings(
            data_dir=folder / "data",
            plugins_dir=own,
            plugins={"child_runner": runner},
            **values,
        )
    )
    app.plugins.load()
    prepare_data(app.settings.data_dir)
    return app


def nobody_watches(progress: Progress) -> None:
    """What a download tells on its way goes nowhere."""


async def fetching(folder: Path, url: str) -> list[Row]:
    """An engine in a warm child, against its command."""
    app = make_app(folder)
    await app.runner.start()
    await app.runner.versions()  # the server is warm
    rows = []
    for number, (engine, words) in enumerate(COMMANDS.items()):
        ours, theirs = [], []
        for repeat in range(REPEAT):
            job = Job(id=f"{number}{repeat:09}", url=url, engine=engine)
            started_s = time.perf_counter()
            fetched = await app.worker.fetch(job, nobody_watches)
            ours.append(time.perf_counter() - started_s)
            assert len(fetched.files) == 1, fetched
            target = folder / engine / str(repeat)
            started_s = time.perf_counter()
            await asyncio.to_thread(
                subprocess.run, [sys.executable, *words, target, url], check=True
            )
            theirs.append(time.perf_counter() - started_s)
            assert len(list(target.iterdir())) == 1
        mine, command = statistics.median(ours), statistics.median(theirs)
        goal = {"gallery-dl": 8, "yt-dlp": 5}[engine]
        rows.append(
            (
                f"50 KB through {engine}, against its command",
                f"{command / mine:.1f} times faster ({mine:.3f} s, {command:.3f} s)",
                f"{goal} times",
            )
        )
    await app.stop()
    return rows


@contextlib.asynccontextmanager
async def running(
    folder: Path, **values: object
) -> AsyncIterator[tuple[FakeDiscord, BossBot]]:
    async with FakeDiscord() as fake:
        with fake.redirect():
            app = make_app(folder, discord_token=fake.token, **values)
            await app.start()
            task = asyncio.create_task(app.client.run())
            await fake.wait_for(lambda: fake.connected)
            await app.bot.wait_until_ready()
            await app.runner.versions()  # the server is warm
            try:
                yield fake, app.bot
            finally:
                await app.stop()
                await task


def answered(fake: FakeDiscord, request: Message) -> bool:
    said = fake.messages(fake.channel.id, bot_only=True)
    return any(message.replied_to is request for message in reversed(said))


def identified(fake: FakeDiscord, before: int) -> bool:
    return fake.sessions["identify"] > before


def posted(fake: FakeDiscord) -> int:
    return sum(
        "Download complete" in message.content
        for channel in list(fake.channels)
        for message in fake.messages(channel, bot_only=True)
    )


async def acknowledging(folder: Path, sites: Sites) -> list[Row]:
    """From a member's message to the bot's answer, while 5 downloads run."""
    slow = Answer(media.padded_video(folder, 2**20), piece_bytes=2048, pause_s=0.05)
    sites.serve("/slow/*", slow)
    waits = []
    async with running(folder, max_concurrent_per_guild=5, max_queue_size=500) as (
        fake,
        bot,
    ):
        for number in range(5):
            await fake.member_says(
                fake.channel.id, f"$download {sites.url(f'/slow/{number}.mp4')}"
            )
        await fake.wait_for(lambda: len(bot.app.worker.running) == 5)
        for number in range(200):
            started_s = time.perf_counter()
            request = await fake.member_says(
                fake.channel.id, f"$download {sites.url(f'/slow/later{number}.mp4')}"
            )
            await fake.wait_for(partial(answered, fake, request))
            waits.append((time.perf_counter() - started_s) * 1000)
    centiles = statistics.quantiles(waits, n=100)
    return [
        (
            "command to acknowledgement, 5 downloads running",
            f"median {statistics.median(waits):.0f} ms, p99 {centiles[98]:.0f} ms",
            "median 50 ms, p99 200 ms",
        )
    ]


async def crowd(folder: Path, sites: Sites) -> list[Row]:
    """20 members, a link each, at once."""
    times = []
    for repeat in range(3):
        async with running(folder / str(repeat), max_concurrent_per_guild=5) as (
            fake,
            _,
        ):
            members = [fake.add_member(f"member{number}") for number in range(20)]
            started_s = time.perf_counter()
            for number, member in enumerate(members):
                url = sites.url(f"/many/{number}.jpg")
                await fake.member_says(
                    fake.channel.id, f"$download {url}", user_id=member.id
                )
            await fake.wait_for(lambda: posted(fake) == 20, 60)
            times.append(time.perf_counter() - started_s)
    return [
        (
            "20 links from 20 members at once, to all posted",
            f"{statistics.median(times):.1f} s",
            "2.5 s",
        )
    ]


def tree_pss_mib(root: int) -> float:
    """Proportional memory of a process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            values = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(values[1])
    members = {root}
    while more := {p for p, up in parents.items() if up in members} - members:
        members |= more
    total = 0
    for pid in members:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(text.partition("\nPss:")[2].split()[0])
    return total / 1024


async def process(folder: Path, sites: Sites) -> list[Row]:
    """A bot in a process of its own: time to READY, memory idle and at work."""
    for name in ("bossbot.py", "config.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "plugins", folder / "plugins")
    hold = Answer(media.padded_video(folder, 4 * 2**20), piece_bytes=8192, pause_s=0.02)
    sites.serve("/held/*", hold)
    rows, starts = [], []
    async with FakeDiscord() as fake:
        environment = {
            **os.environ,
            "FAKE_DISCORD_URL": fake.url,
            "BOSS_BOT_DISCORD_TOKEN": fake.token,
            "BOSS_BOT_PLUGINS__CHILD_RUNNER__ALLOW_PRIVATE_ADDRESSES": "true",
            "BOSS_BOT_MAX_CONCURRENT_PER_GUILD": "5",
        }
        command = [sys.executable, SUPPORT / "run_redirected.py", folder / "bossbot.py"]
        for repeat in range(5):
            before, started_s = fake.sessions["identify"], time.perf_counter()
            bot = await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=asyncio.subprocess.DEVNULL
            )
            await fake.wait_for(partial(identified, fake, before), 30)
            starts.append(time.perf_counter() - started_s)
            if repeat < 4:
                bot.terminate()
                await bot.wait()
        # A job done, so that the fork server is warm and everything is imported.
        await fake.member_says(fake.channel.id, f"$download {sites.url('/one.jpg')}")
        await fake.wait_for(lambda: posted(fake) == 1, 60)
        idle = tree_pss_mib(bot.pid)
        for number in range(5):
            url = sites.url(f"/held/{number}.mp4")
            await fake.member_says(fake.channel.id, f"$download {url}")
        for number in range(5):
            await asyncio.to_thread(sites.wait_for, f"/held/{number}.mp4")
        busy = tree_pss_mib(bot.pid)
        bot.terminate()
        await bot.wait()
    rows.append(("start to READY", f"{statistics.median(starts):.1f} s", "2 s"))
    rows.append(("memory of the process tree, idle", f"{idle:.0f} MB", "130 MB"))
    rows.append(("the same with 5 downloads", f"{busy:.0f} MB", "280 MB"))
    return rows


def own_bot(folder: Path, bot: Path = ROOT) -> Path:
    """A copy of the bot, with a data folder of its own."""
    folder.mkdir()
    for name in ("bossbot.py", "config.toml"):
        shutil.copy(bot / name, folder)
    shutil.copytree(bot / "plugins", folder / "plugins")
    return folder / "bossbot.py"


@contextlib.asynccontextmanager
async def bot_process(
    script: Path, fake: FakeDiscord, environment: dict[str, str]
) -> AsyncIterator[float]:
    """A bot in a process of its own; gives the seconds to READY."""
    command = [sys.executable, SUPPORT / "run_redirected.py", script]
    own = {
        "FAKE_DISCORD_URL": fake.url,
        "BOSS_BOT_DISCORD_TOKEN": fake.token,
        "BOSS_BOT_PLUGINS__CHILD_RUNNER__ALLOW_PRIVATE_ADDRESSES": "true",
        "BOSS_BOT_MAX_CONCURRENT_PER_GUILD": "5",
    }
    before, started_s = fake.sessions["identify"], time.perf_counter()
    bot = await asyncio.create_subprocess_exec(
        *command, env=environment | own, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await fake.wait_for(partial(identified, fake, before), 60)
        yield time.perf_counter() - started_s
    finally:
        bot.terminate()
        await bot.wait()


async def slowly_synced(folder: Path, sites: Sites, bot: Path = ROOT) -> list[Row]:
    """20 members at once, where each sync of the disk takes 30 ms; then one alone."""
    log = folder / "syncs"
    waits: list[float] = []
    async with FakeDiscord() as fake:
        environment = slow_disk(folder, 30, log)
        async with bot_process(own_bot(folder / "bot", bot), fake, environment):
            members = [fake.add_member(f"slow{number}") for number in range(20)]
            # A job done, so that the fork server is warm and everything is imported.
            url = sites.url("/one.jpg")
            await fake.member_says(fake.channel.id, f"$download {url}")
            await fake.wait_for(lambda: posted(fake) == 1, 60)
            await asyncio.sleep(2)  # nothing is left to sync

            async def ask(number: int, user_id: int) -> None:
                url = sites.url(f"/many/slow{number}.jpg")
                started_s = time.perf_counter()
                request = await fake.member_says(
                    fake.channel.id, f"$download {url}", user_id=user_id
                )
                await fake.wait_for(partial(answered, fake, request), 60)
                waits.append((time.perf_counter() - started_s) * 1000)

            before, started_s = log.stat().st_size, time.perf_counter()
            await asyncio.gather(*(ask(n, m.id) for n, m in enumerate(members)))
            await fake.wait_for(lambda: posted(fake) == 21, 60)
            took_s = time.perf_counter() - started_s
            await asyncio.sleep(2)
            syncs = (log.stat().st_size - before) / 20
            before = log.stat().st_size
            await ask(20, members[0].id)
            await fake.wait_for(lambda: posted(fake) == 22, 60)
            await asyncio.sleep(2)
            alone = log.stat().st_size - before
    return [
        (
            "20 links at once, syncs of 30 ms: answered",
            f"median {statistics.median(waits[:20]):.0f} ms, last {max(waits):.0f} ms",
            "median 200 ms",
        ),
        ("the same, to all posted", f"{took_s:.2f} s", ""),
        ("syncs a link", f"{syncs:.1f} of those, {alone} of one alone", ""),
    ]


async def main() -> None:
    logger.remove()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch, Sites() as sites:
        folder = Path(scratch)
        picture = media.padded_image(folder, 50_000)
        sites.serve("/*.jpg", picture)
        sites.serve("/many/*", picture)
        for name in ("fetch", "acknowledge", "crowd", "process", "slow"):
            (folder / name).mkdir()
        rows += await fetching(folder / "fetch", sites.url("/one.jpg"))
        rows += await acknowledging(folder / "acknowledge", sites)
        rows += await crowd(folder / "crowd", sites)
        rows += await process(folder / "process", sites)
        rows += await slowly_synced(folder / "slow", sites)
    table = Table("what", "measured", "goal", box=None)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, Python {platform.python_version()}")
    print(json.dumps(rows))


if __name__ == "__main__":
    asyncio.run(main())
