"""Measures what the table in docs/promises.md shows; run it by hand:

    python tests/tools/benchmark.py [another checkout, to be measured beside this one]

It takes some twelve minutes for both. Everything is real: the engines, the fork server,
discord.py, TLS with as many certificate authorities as anywhere. The media come from
loopback, Discord is tests/support/fake_discord.py. Ratios are taken in one run, by
turns, since machines differ and are noisy.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
sys.path[:0] = [str(ROOT), str(SUPPORT), str(ROOT / "tests" / "tools")]

import media
import requests
from benchmark_archive import archived, asked
from benchmark_fit import made_to_fit
from bossbot_plugins._rows import row_of
from fake_discord import FakeDiscord, Message
from loguru import logger
from rich.console import Console
from rich.table import Table
from sites import Answer, Sites
from sites_canned.reddit import Reddit
from slow_disk import slow_disk

from bossbot import App, Job, Post, Progress, Settings, Status, now, prepare_data

REPEAT = 15
LINKS_EACH = 25  # of an engine: a link's time varies by a half
IDLE_S = 0.5  # after a link, until everything that it left is done
COMMANDS = {
    "gallery-dl": ["-m", "gallery_dl", "--config-ignore", "-q", "-D"],
    "yt-dlp": ["-m", "yt_dlp", "--ignore-config", "-q", "--no-cache-dir", "-P"],
}
# Public, and no name to look up; the proxy of the sites answers for it.
SITE = "https://1.1.1.1"
# What each engine is asked for. Only yt-dlp knows a video by more than its name.
LINKS = {"gallery-dl": f"{SITE}/picture/{{}}.jpg", "yt-dlp": f"{SITE}/video/{{}}"}
CPU_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def trusting(sites: Sites, folder: Path) -> dict[str, str]:
    """Variables that lead through the proxy of the sites, and trust it besides what
    everybody trusts."""
    known = Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).read_bytes()
    file = folder / "authorities.pem"
    file.write_bytes(known + sites.authority_file.read_bytes())
    trust = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(file))
    return {**sites.environment, **trust}


# An engine in a warm child, against its command


def make_app(folder: Path) -> App:
    own = folder / "plugins"
    own.mkdir(parents=True)
    runner = {"allow_private_addresses": True}
    app = App(
        Settings(
            data_dir=folder / "data",
            plugins_dir=own,
            plugins={"child_runner": runner},
        )
    )
    app.plugins.load()
    prepare_data(app.settings.data_dir)
    return app


def nobody_watches(progress: Progress) -> None:
    """What a download tells on its way goes nowhere."""


async def fetching(folder: Path) -> None:
    app = make_app(folder)
    await app.runner.start()
    await app.runner.versions()  # the server is warm
    for number, (engine, words) in enumerate(COMMANDS.items()):
        ours, theirs = [], []
        for repeat in range(REPEAT):
            url = LINKS[engine].format(repeat)
            job = Job(id=f"{number}{repeat:09}", url=url, engine=engine)
            started_s = time.perf_counter()
            fetched = await app.worker.fetch(job, nobody_watches)
            ours.append(time.perf_counter() - started_s)
            assert len(fetched.files) == 1, fetched
            target = folder / engine / str(repeat)
            trust = ["--compat-options", "no-certifi"] if engine == "yt-dlp" else []
            started_s = time.perf_counter()
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, *words, target, *trust, url],
                check=True,
            )
            theirs.append(time.perf_counter() - started_s)
            assert len(list(target.iterdir())) == 1
        mine, command = statistics.median(ours), statistics.median(theirs)
        goal = {"gallery-dl": 8, "yt-dlp": 5}[engine]
        show(
            f"50 KB through {engine}, against its command",
            f"{command / mine:.1f} times faster ({mine:.3f} s, {command:.3f} s)",
            f"{goal} times",
        )
    await app.stop()


async def choosing(folder: Path, sites: Sites) -> None:
    """A video in three sizes, of which one can be posted as it is."""
    offered = {1080: 80, 720: 35, 480: 15}  # MB
    tags, files = [], {}
    for number, (side, size) in enumerate(offered.items(), 1):
        path = f"/video-{side}.mp4"
        files[path] = media.padded_video(folder, size * 1_000_000, number)
        url = sites.serve(f"{SITE}{path}", files[path])
        tags.append(f'<source src="{url}" type="video/mp4" label="{side}p">')
    page = sites.serve(f"{SITE}/sizes", f"<video>{''.join(tags)}</video>")
    app = make_app(folder / "app")
    await app.runner.start()
    before = len(sites.requests)
    job = Job(id="choosing00", url=page, engine="yt-dlp", limit_bytes=20 * 2**20)
    fetched = await app.worker.complete(job, nobody_watches)
    asked = [one for one in sites.requests[before:] if one.method == "GET"]
    size = sum(files[one.path].stat().st_size for one in asked if one.path in files)
    [file] = fetched.files
    same = file.path.read_bytes() == files["/video-480.mp4"].read_bytes()
    show(
        "1080p of 80 MB, 720p of 35 MB, 480p of 15 MB, for 20 MiB: fetched",
        f"{size / 10**6:.0f} MB, posted {'as it is' if same else 'changed'}",
        "16 MB",
    )
    await app.stop()


# The bot, in a process of its own


class Bot:
    """A bot of a checkout, with a Discord of its own."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        fake: FakeDiscord,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.fake, self.asked = folder, fake, 0
        self.environment = environment or {}
        self.times: dict[str, list[float]] = defaultdict(list)
        self.members: list[tuple[int, int]] = []  # each with a channel
        for path in (*root.glob("*.py"), root / "config.toml"):
            shutil.copy(path, folder)
        shutil.copytree(root / "plugins", folder / "plugins")

    async def run(self, *command: str, **variables: str) -> asyncio.subprocess.Process:
        """A process of the bot."""
        environment = {
            **os.environ,
            "FAKE_DISCORD_URL": self.fake.url,
            "BOSS_BOT_DISCORD_TOKEN": self.fake.token,
            "BOSS_BOT_PLUGINS__CHILD_RUNNER__ALLOW_PRIVATE_ADDRESSES": "true",
            "BOSS_BOT_MAX_CONCURRENT_PER_GUILD": "5",
            "BOSS_BOT_MAX_QUEUE_SIZE": "500",
            # The model that searches by meaning is measured by itself.
            "BOSS_BOT_PLUGINS__ARCHIVE__MEANING": "off",
            "BOSS_BOT_PLUGINS__RELEASES__CHECK_INTERVAL_S": "0",  # no network
            "BOSS_BOT_DISABLED_PLUGINS": '["limits"]',  # one member asks for all
        }
        if "max_concurrent_per_user" in (self.folder / "config.toml").read_text():
            environment["BOSS_BOT_MAX_CONCURRENT_PER_USER"] = "5"
        environment |= {**self.environment, **variables}
        script = SUPPORT / "run_redirected.py"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, script, self.folder / "bossbot.py", *command),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def start(self, *command: str) -> None:
        before, started_s = self.fake.sessions["identify"], time.perf_counter()
        self.process = await self.run(*command)
        await self.fake.wait_for(lambda: self.fake.sessions["identify"] > before, 30)
        self.times["start"].append(time.perf_counter() - started_s)

    async def stop(self) -> None:
        self.process.terminate()
        await self.process.wait()

    async def ask(self, link: str, user_id: int = 0, channel_id: int = 0) -> Message:
        self.asked += 1
        words = f"$download {link.format(self.asked)}"
        channel_id = channel_id or self.fake.channel.id
        return await self.fake.member_says(channel_id, words, user_id or None)

    async def all_ask(self, link: str) -> list[Message]:
        """20 members ask for a link each. Each has a channel, as Discord takes only
        five messages at once in one."""
        while len(self.members) < 20:
            channel = await self.fake.add_channel(f"channel{len(self.members)}")
            member = self.fake.add_member(f"member{len(self.members)}")
            self.members.append((member.id, channel.id))
        return [await self.ask(link, *where) for where in self.members]

    def replies(self, request: Message, files: bool) -> list[Message]:
        """Also those that are gone: a status message, once the files are there."""
        said = self.fake.all_messages.values()
        own = [one for one in said if one.replied_to is request]
        return [one for one in own if bool(one.files) is files]

    async def waited_ms(self, request: Message, files: bool) -> float:
        """From a request to its answer, or its file: by when Discord got both."""
        [reply, *_] = await self.fake.wait_for(
            partial(self.replies, request, files), 60
        )
        return (reply.created_at - request.created_at).total_seconds() * 1000

    def told(self, request: Message) -> bool:
        """Whether the files are there, and the status message says so or is gone."""
        said = self.replies(request, False)  # none if the files came before it
        over = all(one.deleted or "Done in" in one.content for one in said)
        return over and bool(self.replies(request, True))

    async def ask_and_wait(self, kind: str, link: str) -> None:
        cpu_s = self.cpu_s()
        request = await self.ask(link)
        self.times[f"{kind} answer"].append(await self.waited_ms(request, False))
        self.times[f"{kind} post"].append(await self.waited_ms(request, True))
        await self.fake.wait_for(lambda: self.told(request))
        self.times[f"{kind} cpu"].append((self.cpu_s() - cpu_s) * 1000)

    async def crowd(self) -> None:
        """20 members, a link each, at once."""
        asked = await self.all_ask(LINKS["gallery-dl"])
        answers = [await self.waited_ms(one, False) for one in asked]
        self.times["crowd answer"].append(statistics.median(answers))
        ends = [await self.waited_ms(one, True) for one in asked]
        self.times["crowd post"].append(max(ends))

    async def flood(self) -> None:
        """200 links, with as many requests as Discord takes in a second."""
        self.fake.let_in.clear()
        started_s = time.perf_counter()
        self.fake.requests_per_s = 50
        asked = [
            request
            for _ in range(10)
            for request in await self.all_ask(LINKS["gallery-dl"])
        ]
        async with asyncio.timeout(120):
            while not all(map(self.told, asked)):
                await asyncio.sleep(0.1)
        self.fake.requests_per_s = 0
        self.times["told"] = [len(asked) / (time.perf_counter() - started_s)]
        self.times["requests"] = [self.fake.let_in.total() / len(asked)]

    def tree(self) -> dict[int, list[int]]:
        """The processes, and their times on the processor in ticks: own ones, then
        those of children that have ended."""
        parents, ticks = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                values = stat.read_text().rpartition(")")[2].split()
                parents[int(stat.parent.name)] = int(values[1])
                ticks[int(stat.parent.name)] = [int(one) for one in values[11:15]]
        members = {self.process.pid}
        while more := {p for p, up in parents.items() if up in members} - members:
            members |= more
        return {pid: ticks[pid] for pid in members}

    def encoders(self) -> list[int]:
        """Those of the processes that are ffmpeg."""
        found = []
        for pid in self.tree():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "ffmpeg\n":
                    found.append(pid)
        return found

    def cpu_s(self) -> float:
        return sum(map(sum, self.tree().values())) * CPU_TICK_S

    def memory_mb(self) -> float:
        """Proportional memory of all processes."""
        total = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(text.partition("\nPss:")[2].split()[0])
        return total / 1024


@contextlib.asynccontextmanager
async def bots(folder: Path, roots: Iterable[Path]) -> AsyncIterator[list[Bot]]:
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number, root in enumerate(roots):
            place = folder / f"bot{number}"
            place.mkdir()
            fake = await stack.enter_async_context(FakeDiscord())
            made.append(Bot(root, place, fake))
        for _ in range(5):
            for bot in made:
                await bot.start()
                await bot.stop()
        for bot in made:
            await bot.start()
            stack.push_async_callback(bot.stop)
        yield made


async def working(folder: Path, sites: Sites, roots: list[Path]) -> None:
    hold = Answer(media.padded_video(folder, 4 * 2**20), piece_bytes=8192, pause_s=0.02)
    sites.serve(f"{SITE}/held/*", hold)

    async def download_five(bot: Bot) -> list[Message]:
        before = len(sites.requests)
        asked = [await bot.ask(f"{SITE}/held/{{}}.mp4") for _ in range(5)]
        while held_since(sites, before) < 5:
            await asyncio.sleep(0.05)
        return asked

    async with bots(folder, roots) as all_bots:
        for bot in all_bots:  # the fork server is warm, and everything is imported
            for kind, link in LINKS.items():
                await bot.ask_and_wait(f"first {kind}", link)
            bot.times["idle"] = [bot.memory_mb()]
        for bot in all_bots:
            asked = await download_five(bot)
            bot.times["busy"] = [bot.memory_mb()]
            for request in asked:
                await bot.waited_ms(request, True)
        for _ in range(LINKS_EACH):
            for kind, link in LINKS.items():
                for bot in all_bots:
                    # Who comes after the other's long wait would be measured cold.
                    await bot.waited_ms(await bot.ask(link), True)
                    await asyncio.sleep(IDLE_S)
                    await bot.ask_and_wait(kind, link)
        for _ in range(3):
            for bot in all_bots:
                await bot.crowd()
        for bot in all_bots:
            await bot.flood()
        for bot in all_bots:
            before = len(sites.requests)
            for _ in range(REPEAT):
                request = await bot.ask(LINKS["gallery-dl"].format(1))
                bot.times["again"].append(await bot.waited_ms(request, False))
            bot.times["fetched"] = [float(len(sites.requests) - before)]
        for bot in all_bots:
            await download_five(bot)
            bot.times["flooded"] = [bot.memory_mb()]
            for _ in range(100):
                request = await bot.ask(f"{SITE}/held/{{}}.mp4")
                bot.times["busy answer"].append(await bot.waited_ms(request, False))
    for kind in LINKS:
        times, ms = f"{kind} {{}}", "{:.0f} ms"
        compare(f"command to posted, {kind}", all_bots, times.format("post"), ms)
        compare(
            f"command to answer, idle, {kind}", all_bots, times.format("answer"), ms
        )
        compare(
            f"processor time of a link, {kind}",
            all_bots,
            times.format("cpu"),
            ms,
            statistics.fmean,
        )
    compare("20 links at once: answer", all_bots, "crowd answer", "{:.0f} ms")
    compare("20 links at once: all posted", all_bots, "crowd post", "{:.0f} ms")
    flooded = "200 links, 50 requests a second: {}".format
    compare(flooded("told a second"), all_bots, "told", "{:.1f}")
    compare(flooded("requests a link"), all_bots, "requests", "{:.2f}")
    compare("a repeated link: answered", all_bots, "again", "{:.0f} ms")
    compare("15 repeated links: requests to the site", all_bots, "fetched", "{:.0f}")
    compare("answer, 5 downloads running", all_bots, "busy answer", "{:.0f} ms")
    compare("start to READY", all_bots, "start", "{:.2f} s")
    compare("memory of the process tree, idle", all_bots, "idle", "{:.0f} MB")
    compare("the same with 5 downloads", all_bots, "busy", "{:.0f} MB")
    compare("the same after the 200 links", all_bots, "flooded", "{:.0f} MB")


async def searching(folder: Path, sites: Sites) -> None:
    """The archive, by itself and behind /search."""
    (folder / "alone").mkdir()
    await archived(folder / "alone", show)
    hold = Answer(media.padded_video(folder, 4 * 2**20), piece_bytes=8192, pause_s=0.02)
    sites.serve(f"{SITE}/held/*", hold)
    async with bots(folder, [ROOT]) as [bot]:
        before = len(sites.requests)
        running = partial(held_since, sites, before)
        link, held = f"{SITE}/picture/giraffe.jpg", f"{SITE}/held/{{}}.mp4"
        await asked(bot, link, held, running, show)


async def slowly_synced(folder: Path, roots: list[Path]) -> None:
    """20 members at once, where each sync of the disk takes 30 ms; then one alone."""
    link, all_bots = LINKS["gallery-dl"], []
    for number, root in enumerate(roots):
        place = folder / f"slow{number}"
        place.mkdir()
        log = place / "syncs"

        async def syncs(log: Path = log) -> int:
            await asyncio.sleep(2)  # nothing is left to sync
            return log.stat().st_size

        async with FakeDiscord() as fake:
            bot = Bot(root, place, fake, slow_disk(place, 30, log))
            all_bots.append(bot)
            await bot.start()
            await bot.ask_and_wait("first", link)
            before = await syncs()
            await bot.crowd()
            many = await syncs()
            await bot.ask_and_wait("alone", link)
            bot.times["syncs"] = [(many - before) / 20]
            bot.times["syncs alone"] = [float(await syncs() - many)]
            await bot.stop()
    slow = "20 links at once, syncs of 30 ms: {}".format
    compare(slow("answer"), all_bots, "crowd answer", "{:.0f} ms")
    compare(slow("all posted"), all_bots, "crowd post", "{:.0f} ms")
    compare(slow("syncs a link"), all_bots, "syncs", "{:.1f}")
    compare("syncs of a link alone", all_bots, "syncs alone", "{:.0f}")


# What has piled up

ENDED, KEPT, WAITING = 10**6, 100_000, 50_000


def pile_up(data: Path, kept: int, guild_id: int = 1, user_id: int = 1) -> None:
    """A million jobs that have ended, some with kept files. A third is of that guild,
    one in 99 of that member, and one in ten failed."""
    job = Job(id="", url=f"{SITE}/picture/1.jpg", platform="other", channel_id=1)
    job.status, job.facts = Status.COMPLETED, {"title": "A title of a usual length"}
    job.posts = [Post(1, "A title of a usual length", {"name.jpg": "0" * 64}, "sent")]
    row = row_of(job) | {"file_count": 1, "total_bytes": 50_000, "title": "A title"}
    made = {
        "id": "printf('%010x', n)",
        "request_key": "n",
        "guild_id": f"iif(n % 3, n % 1000, {guild_id})",
        "user_id": f"iif(n % 99, n % 5000, {user_id})",
        "status": "iif(n % 10, 'completed', 'failed')",
        "finished_at": f"{now()} - 4000 - n % 500000",
        "folder": f"iif(n < {kept}, 'downloads/' || n, '')",
    }
    count = f"WITH c(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM c LIMIT {ENDED}) "
    with contextlib.closing(sqlite3.connect(data / "bossbot.db")) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA cache_size=-300000")  # KiB
        for table in ("jobs", "history"):
            about = connection.execute(f"PRAGMA table_info({table})").fetchall()
            names = [one[1] for one in about if one[3]] or ["id"]  # what must be there
            values = [made.get(n, f":{n}" if n in row else "0") for n in names]
            if not about:
                continue
            indexes = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql > '' "
                "AND tbl_name = ?",
                (table,),
            ).fetchall()
            for name, _sql in indexes:  # made at once they take less time
                connection.execute(f"DROP INDEX {name}")
            connection.execute(
                f"INSERT INTO {table} ({', '.join(names)}) {count} "
                f"SELECT {', '.join(values)} FROM c",
                row,
            )
            for _name, sql in indexes:
                connection.execute(sql)
        if about:
            count_all(connection, guild_id)
        connection.commit()
    for n in range(kept):
        folder = data / "downloads" / f"{n % 1000}" / f"day{n % 7}" / f"{n:010x}"
        (folder / "content").mkdir(parents=True)
        (folder / "content" / "name.jpg").write_bytes(b"0" * 1000)


def count_all(connection: sqlite3.Connection, guild_id: int) -> None:
    """What the statistics have of these jobs: a year, of eight sites."""
    today = int(now() // 86400)
    for where in (guild_id, -1):
        for day in (0, *range(today - 365, today + 1)):
            sites = [(where, day, f"site{n}", 100, 10, 10**7) for n in range(8)]
            times = [
                (where, day, kind, n, 10)
                for kind in ("wait", "duration")
                for n in range(40)
            ]
            connection.executemany("INSERT INTO stats VALUES (?, ?, ?, ?, ?, ?)", sites)
            connection.executemany(
                "INSERT INTO stats_times VALUES (?, ?, ?, ?, ?)", times
            )
    members = [(guild_id, n, n % 999, 10**7) for n in range(5000)]
    connection.executemany("INSERT INTO stats_members VALUES (?, ?, ?, ?)", members)
    connection.execute("INSERT INTO stats_jobs VALUES (1, '', ?)", (now(),))


async def piled_up(folder: Path, sites: Sites, roots: list[Path]) -> None:
    app = make_app(folder / "app")
    await app.database.start()
    await asyncio.to_thread(pile_up, app.settings.data_dir, KEPT)
    await claiming(app)
    await sweeping(app)
    await app.stop()
    all_bots = []
    async with contextlib.AsyncExitStack() as stack:
        for number, root in enumerate([*roots[:1], *roots]):
            place = folder / f"bot{number}"
            place.mkdir()
            fake = await stack.enter_async_context(FakeDiscord())
            bot = Bot(root, place, fake)
            all_bots.append(bot)
            await bot.start()
            await bot.stop()
            if number:
                who = (fake.guild.id, fake.owner.id)
                await asyncio.to_thread(pile_up, place / "data", 0, *who)
        for _ in range(6):
            for bot in all_bots:
                await bot.start()
                await bot.stop()
        await commands(folder, sites, all_bots[1])
    empty, *all_bots = all_bots
    for bot in [empty, *all_bots]:
        bot.times["start"] = bot.times["start"][2:]
    compare("start to READY, 1M jobs have ended", all_bots, "start", "{:.2f} s")
    mine, none = (statistics.median(b.times["start"]) for b in (all_bots[0], empty))
    goal = "at most 1.2 times"
    show("the same, beside an empty database", f"{mine / none:.2f} times", goal)


# A command, and its options in order; "waiting" and "failed" stand for the id of such a
# job. Those of the second list are the owner's.
COMMON: list[tuple[str, dict[str, str]]] = [
    ("download", {"url": "no-link"}),
    ("queue list", {}),
    ("queue move", {"id": "waiting", "priority": "high"}),
    ("queue cancel", {"id": "waiting"}),
    ("queue retry", {"id": "failed"}),
    ("queue clear", {}),
    ("queue purge", {}),
    ("settings view", {}),
    ("settings view", {"setting": "quality"}),
    ("settings update", {"setting": "quality", "value": "720"}),
    ("stats", {}),
    ("help", {}),
    ("help", {"command": "download"}),
    ("ping", {}),
    ("about", {}),
    ("privacy stats", {"choice": "off"}),
    ("privacy forget", {}),
]
OWNERS: list[tuple[str, dict[str, str]]] = [
    ("stats", {"where": "everywhere"}),
    ("privacy show", {}),  # 10,000 rows
    ("plugins list", {}),
    ("plugins reload", {"name": "help"}),
    ("plugins sync", {}),
]


async def commands(folder: Path, sites: Sites, bot: Bot) -> None:
    """Every command in both ways, with 5 downloads running, 50 that wait, and a million
    that have ended."""
    hold = Answer(media.padded_video(folder, 4 * 2**20), piece_bytes=8192, pause_s=0.02)
    sites.serve(f"{SITE}/held/*", hold)
    fake, before = bot.fake, len(sites.requests)
    bot.environment = {"BOSS_BOT_DISABLED_PLUGINS": "[]"}  # with limits
    await bot.start()
    asked = [
        await bot.ask(f"{SITE}/held/{{}}.mp4", fake.add_member(f"held{n}").id)
        for n in range(55)
    ]
    while held_since(sites, before) < 5:
        await asyncio.sleep(0.05)
    answers = [await fake.wait_for(partial(bot.replies, one, False)) for one in asked]
    waiting = [one[0].content.rpartition(" ")[2].strip("`") for one in answers]
    failed = [f"{30 * n:010x}" for n in range(1, 100)]
    place = await fake.add_channel("commands")
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(5):
        for name, options in [*COMMON, *OWNERS]:
            for way in "$/":
                ids = {"waiting": waiting.pop, "failed": failed.pop}
                given = {k: ids.get(v, v.strip)() for k, v in options.items()}
                who = fake.owner
                if (name, options) not in OWNERS:  # each has limits of his own
                    who = await fake.add_moderator("moderator", "administrator")
                started_s = time.perf_counter()
                if way == "$":
                    words = " ".join([f"${name}", *given.values()])
                    request = await fake.member_says(place.id, words, who.id)
                    await fake.wait_for(partial(answered, bot, request))
                else:
                    slash = await fake.slash(place.id, name, given, who.id)
                    await fake.answered(slash)
                took_ms = (time.perf_counter() - started_s) * 1000
                times[" ".join([way + name, *options.values()])].append(took_ms)
    await bot.stop()
    medians = {words: statistics.median(took) for words, took in times.items()}
    pictured = [medians.pop(words) for words in list(medians) if "stats" in words[:6]]
    slowest = sorted(medians, key=lambda words: -medians[words])
    told = ", ".join(f"{words} {medians[words]:.0f} ms" for words in slowest[:3])
    what = "a command, 5 running, 1M ended"
    text = f"median {statistics.median(medians.values()):.0f} ms; slowest: {told}"
    show(what, text, "100 ms each")
    show("/stats with its picture, the same", f"{max(pictured):.0f} ms", "1000 ms")


def answered(bot: Bot, request: Message) -> bool:
    return bool(bot.replies(request, False) or bot.replies(request, True))


async def claiming(app: App) -> None:
    rows = [
        row_of(
            Job(
                id=f"w{number:09}",
                url=SITE,
                request_key=f"w{number}",
                guild_id=number % 1000,
                user_id=number % 3000,
            )
        )
        for number in range(WAITING)
    ]
    names = ", ".join(f":{name}" for name in rows[0])
    async with app.database.transaction() as connection:
        sql = f"INSERT INTO jobs ({', '.join(rows[0])}) VALUES ({names})"
        await connection.executemany(sql, rows)
    times, running = [], []
    for _ in range(40):
        started_s = time.perf_counter()
        running.append(await app.queue.claim("bench", 60))
        times.append((time.perf_counter() - started_s) * 1000)
        if len(running) == 4:  # of 5 slots
            for job in running:
                job.status = Status.UPLOADING
                await app.queue.save(job, 60)
            running = []
    text = f"median {statistics.median(times):.2f} ms, longest {max(times):.1f} ms"
    show("a claim, 50,000 waiting in 1,000 servers", text, "1 ms")


async def sweeping(app: App) -> None:
    """The sweeps of one hour, and what a start adds to the history."""
    from bossbot_plugins import history, retention

    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.perf_counter() - before - 0.001)

    def memory_mib(name: str) -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.partition(f"\n{name}:")[2].split()[0]) / 1024

    for_ever = {"completed_retention_s": 0, "failed_retention_s": 0, "max_storage": 0}
    config = retention.Config(**for_ever, min_free_space=0)
    gc.collect()
    gc.freeze()  # as the bot does at its start
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, cpu_s = memory_mib("VmRSS"), time.process_time()
    watching = asyncio.create_task(watch())
    await retention.sweep_downloads(app, config)
    await history.run(app, history.Config())
    watching.cancel()
    cpu_s = time.process_time() - cpu_s
    lag = f"lag of the loop {longest_s * 1000:.0f} ms"
    more = f"{memory_mib('VmHWM') - before:+.0f} MiB, {cpu_s:.1f} CPU s"
    show("a sweep, 100,000 kept, 1M ended", f"{lag}, {more}", "50 ms, +20 MiB")


# A gallery


async def gallery(folder: Path, sites: Sites, roots: list[Path]) -> None:
    """50 pictures that take half a second each: mostly waiting, so for all at once."""
    pictures = [media.padded_image(folder, 50_000, number) for number in range(1, 51)]
    link = Reddit(sites).gallery("aa1", *pictures)
    for number, picture in enumerate(pictures, 1):
        slow = Answer(picture, delay_s=0.5)
        sites.serve(f"https://i.redd.it/aa1x{number}{picture.suffix}", slow)

    async def measured(number: int, root: Path) -> Bot:
        place = folder / f"gallery{number}"
        place.mkdir()
        async with FakeDiscord() as fake:
            bot = Bot(root, place, fake)
            await bot.start()
            await bot.ask_and_wait("warm", LINKS["gallery-dl"])
            request = await bot.ask(link, fake.add_member("another").id)
            first_ms = await bot.waited_ms(request, True)
            await fake.wait_for(partial(bot.told, request), 60)
            posted = bot.replies(request, True)
            assert sum(len(one.files) for one in posted) == 50
            took = posted[-1].created_at - request.created_at
            bot.times["first"] = [first_ms / 1000]
            bot.times["last"] = [took.total_seconds()]
            await bot.stop()
        return bot

    all_bots = await asyncio.gather(*(measured(*one) for one in enumerate(roots)))
    compare("50 pictures of 0.5 s: the first one posted", all_bots, "first", "{:.1f} s")
    compare("50 pictures of 0.5 s: all posted", all_bots, "last", "{:.1f} s")


def said(message: Message, words: str) -> bool:
    return words in message.content


async def behind_an_encode(folder: Path, sites: Sites, source: Path) -> None:
    """10 small links while a large video is made to fit, and while that stands still."""
    sites.serve(f"{SITE}/large/*", source)
    async with bots(folder, [ROOT]) as [bot]:
        await bot.ask_and_wait("warm", LINKS["gallery-dl"])
        large = await bot.ask(f"{SITE}/large/{{}}.mp4")
        [status] = await bot.fake.wait_for(partial(bot.replies, large, False), 60)
        await bot.fake.wait_for(partial(said, status, "Making it fit"), 60)
        for number in range(12):  # by turns: one half-minute is not like another
            turns = [("alone", signal.SIGSTOP), ("behind", signal.SIGCONT)]
            for what, sent in turns[:: 1 if number % 2 else -1]:
                for process in bot.encoders():
                    os.kill(process, sent)
                began_s = time.perf_counter()
                asked = [await bot.ask(LINKS["gallery-dl"]) for _ in range(10)]
                for one in asked:
                    await bot.waited_ms(one, True)
                bot.times[what].append(time.perf_counter() - began_s)
        for process in bot.encoders():
            os.kill(process, signal.SIGCONT)
        assert not bot.replies(large, True), "the encoding was over too soon"
    pairs = zip(bot.times["behind"], bot.times["alone"], strict=True)
    ratio = statistics.median(behind / alone for behind, alone in pairs)
    show("10 small links behind an encode", f"{ratio:.2f} times", "1.2 times")


def held_since(sites: Sites, before: int) -> int:
    return sum("/held/" in one.url for one in sites.requests[before:])


# What comes out

rows: list[tuple[str, str, str]] = []
GOALS = {
    "command to answer, idle, gallery-dl": "10 ms",
    "20 links at once: answer": "60 ms",
    "20 links at once: all posted": "2500 ms",
    "20 links at once, syncs of 30 ms: answer": "200 ms",
    "200 links, 50 requests a second: told a second": "17",
    "50 pictures of 0.5 s: the first one posted": "5 s",
    "a repeated link: answered": "100 ms",
    "15 repeated links: requests to the site": "0",
    "answer, 5 downloads running": "50 ms",
    "start to READY": "2 s",
    "memory of the process tree, idle": "130 MB",
    "the same with 5 downloads": "180 MB",
}


def show(what: str, measured: str, goal: str) -> None:
    print(f"{what}: {measured}", file=sys.stderr, flush=True)
    rows.append((what, measured, goal))


def compare(
    what: str,
    all_bots: list[Bot],
    key: str,
    unit: str,
    typical: Callable[[list[float]], float] = statistics.median,
) -> None:
    """Show a figure of this checkout, and how it compares to the other one."""
    mine, *other = [typical(bot.times[key]) for bot in all_bots]
    text = unit.format(mine)
    if other:
        text += f", before {unit.format(other[0])}"
        text += f": {other[0] / mine:.2f} to 1" if mine else ""
    show(what, text, GOALS.get(what, ""))


def checkout(name: str) -> Path:
    """The folder of another state of the bot; raises ArgumentTypeError for any other."""
    if not (Path(name) / "bossbot.py").is_file():
        raise argparse.ArgumentTypeError(f"{name}: no bossbot.py is in it")
    return Path(name)


async def main() -> None:
    logger.remove()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's bot has it
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("others", nargs="*", type=checkout, metavar="CHECKOUT")
    roots = [ROOT, *parser.parse_args().others]
    try:
        await measure(roots)
    finally:  # what was measured is shown, whatever failed after it
        table = Table("what", "measured", "goal", box=None)
        for row in rows:
            table.add_row(*row)
        Console(width=120).print(table)
        cores, machine = len(os.sched_getaffinity(0)), platform.machine()
        print(f"{machine}, {cores} cores, Python {platform.python_version()}")
        print(json.dumps(rows))


async def measure(roots: list[Path]) -> None:
    """Fill ``rows``."""
    with tempfile.TemporaryDirectory() as scratch, Sites() as sites:
        folder = Path(scratch)
        os.environ |= trusting(sites, folder)
        sites.serve(f"{SITE}/picture/*", media.padded_image(folder, 50_000))
        sites.serve(f"{SITE}/video/*", media.padded_video(folder, 50_000))
        names = ("fetch", "work", "slow", "pile", "gallery", "choose", "fit", "behind")
        for name in (*names, "search"):
            (folder / name).mkdir()
        await fetching(folder / "fetch")
        await choosing(folder / "choose", sites)
        await working(folder / "work", sites, roots)
        await slowly_synced(folder / "slow", roots)
        await piled_up(folder / "pile", sites, roots)
        await gallery(folder / "gallery", sites, roots)
        await searching(folder / "search", sites)
        source = await made_to_fit(folder / "fit", show)
        await behind_an_encode(folder / "behind", sites, source)


if __name__ == "__main__":
    asyncio.run(main())
