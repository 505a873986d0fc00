"""Measures the archive; a part of benchmark.py, or by itself, in three minutes:

    python tests/tools/benchmark_archive.py

The texts are those of evaluate_archive.py, with what Python's library says about itself;
the vectors of the large archives are mixed from theirs, since the search is exact
whatever they are.
"""

import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "tests" / "support"),
    str(ROOT / "tests" / "tools"),
]

import evaluate_archive
from bossbot_plugins._archive import Query
from bossbot_plugins._limited_child import LimitedChild
from bossbot_plugins.archive import _file
from loguru import logger

from bossbot import App, Passage, Settings, prepare_data

Show = Callable[[str, str, str], None]
GUILD, CHANNELS = 1, range(10, 20)
SOME = CHANNELS[:4]  # that a member may read
MEMBER, OTHERS = 7, 8
MINE = 115  # one post in so many is the member's who is forgotten
ARCHIVE = ("archive", "search", "ask", "read_pictures", "describe_files")
# What the bot takes with all plugins and an archive that has been searched, or without
# these plugins; in MB that it shares with nobody.
MEMORY = """
import asyncio, sys
from pathlib import Path
from bossbot import App, Settings, prepare_data

async def main():
    folder = Path(sys.argv[1])
    app = App(Settings(
        data_dir=folder, plugins_dir=folder / "own", disabled_plugins=sys.argv[2:]
    ))
    app.plugins.load()
    prepare_data(folder)
    if "archive" not in sys.argv:
        from bossbot_plugins._archive import Query
        await app.archive.search(Query(text="a red fox", guild_id=1, channels=[10]))
    text = Path("/proc/self/smaps_rollup").read_text()
    sizes = dict(line.split()[:2] for line in text.splitlines()[1:])
    print((int(sizes["Private_Clean:"]) + int(sizes["Private_Dirty:"])) / 1024)
    await app.stop()

asyncio.run(main())
"""


def make_app(folder: Path) -> Any:
    (folder / "own").mkdir(parents=True)
    app = App(Settings(data_dir=folder / "data", plugins_dir=folder / "own"))
    app.plugins.load()
    prepare_data(app.settings.data_dir)
    return app


def fill(
    path: Path, texts: list[str], rows: list[bytes], count: int, model: str
) -> None:
    """Make an archive of so many posts of a piece each, with vectors."""
    rng = random.Random(7)
    db = _file.open_file(path)
    with _file.transaction(db):
        _file.set_fact(db, "model", model)
        _file.set_fact(db, "cutting", f"{_file.CUTTING} 500")
        for number in range(count):
            words = f"{rng.choice(texts)[:160]} {rng.choice(texts)[:160]} {number}"
            user_id = OTHERS if number % MINE else MEMBER
            row = _file.PostRow(
                *(f"{number:010x}", GUILD, rng.choice(CHANNELS), user_id),
                *(float(number), "site", f"https://a.example/{number}", "image"),
                *("", "", False, False),
            )
            said = words if user_id == OTHERS else f"{words} {number}thesecret"
            messages = [(number + 1, row.channel_id)]
            _file.add_post(db, row, messages, [Passage(said, "text")], 500)
        found = _file.without_vectors(db, count)
        new = [(*one[:4], mixed(rng, rows)) for one in found]
        _file.add_vectors(db, new, model)
        db.execute("DELETE FROM work")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def mixed(rng: random.Random, rows: list[bytes]) -> bytes:
    """A row between two others."""
    at = rng.randrange(1, len(rows[0]))
    return rng.choice(rows)[:at] + rng.choice(rows)[at:]


async def timed_ms(work: Any) -> float:
    started_s = time.perf_counter()
    await work
    return (time.perf_counter() - started_s) * 1000


def search(app: App, text: str, channels: Sequence[int] = CHANNELS) -> Any:
    query = Query(text=text, guild_id=GUILD, channels=channels)
    return app.archive.search(query)


def cpu_s(pid: int) -> float:
    """The processor's time of this process and of a child."""
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(values[11]) + int(values[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def child_mb(child: LimitedChild) -> float:
    """Proportional memory of the child."""
    text = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


async def archived(folder: Path, show: Show) -> None:
    """Measure an archive without a Discord."""
    questions = [one.text for one in evaluate_archive.questions()]
    texts = [*evaluate_archive.posts().values(), *evaluate_archive.strangers(2000)]
    rows: list[bytes] = []
    for count in (10_000, 100_000):
        app: Any = make_app(folder / str(count))
        await app.database.start()
        meaning = app.archive.meaning
        if not rows:
            await meaning.embed(texts[:1])
            short = [text[:85] for text in texts]
            took_ms = await timed_ms(meaning.embed(short))
            rows = await meaning.embed(texts)
            rate = len(short) / took_ms * 1000
            show("pieces that get vectors in a second", f"{rate:.0f}", "300")
        path = app.settings.data_dir / "archive.db"
        await asyncio.to_thread(fill, path, texts, rows, count, meaning.model)
        await meaning.stop()
        first_ms = await timed_ms(search(app, questions[0]))
        what = f"the first search among {count:,} pieces after idle"
        show(what, f"{first_ms / 1000:.1f} s", "2 s")
        for channels in (CHANNELS, SOME):
            before_s = cpu_s(meaning.pid)
            times = [await timed_ms(search(app, one, channels)) for one in questions]
            cpu_ms = (cpu_s(meaning.pid) - before_s) / len(times) * 1000
            worst = statistics.quantiles(times, n=20)[-1]
            what = f"search among {count:,} pieces, {len(channels)} of 10 channels"
            text = f"median {statistics.median(times):.0f} ms, p95 {worst:.0f} ms"
            text += f"; {cpu_ms:.0f} ms of the processor"
            show(what, text, "median 60 ms" if count == 10_000 else "p95 250 ms")
        show("memory of its child", f"{child_mb(meaning._child):.0f} MB", "170 MB")
        size = path.stat().st_size / count / 1024
        show("its file, for a post of 320 characters", f"{size:.2f} KiB", "")
        if count == 100_000:
            await forgotten(app, path, count // MINE, show)
        await app.stop()
    await asyncio.to_thread(in_the_bot, folder / "10000" / "data", show)


async def forgotten(app: Any, path: Path, count: int, show: Show) -> None:
    """Forget a member, to the last byte of the files."""

    def there() -> bool:
        files = path.parent.glob(f"{path.name}*")
        return any(b"thesecret" in file.read_bytes() for file in files)

    assert there()
    cleaning = asyncio.create_task(app.archive._insist(app.archive._clean))
    started_s = time.perf_counter()
    await app.archive.forget(GUILD, MEMBER)
    gone_s = time.perf_counter() - started_s
    while await asyncio.to_thread(there):
        await asyncio.sleep(0.05)
    took_s = time.perf_counter() - started_s
    cleaning.cancel()
    what = f"{count} of 100,000 posts forgotten: not found; no byte of the text left"
    show(what, f"{gone_s:.1f} s; {took_s:.1f} s", "2 s")


def in_the_bot(data: Path, show: Show) -> None:
    """What the archive takes in the bot's own process."""
    (data / "own").mkdir(exist_ok=True)

    def memory_mb(*without: str) -> float:
        command = [sys.executable, "-c", MEMORY, data, *without]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, env=environment, check=True)
        return float(done.stdout)

    pairs = [(memory_mb(), memory_mb(*ARCHIVE)) for _ in range(3)]
    more = statistics.median(one - other for one, other in pairs)
    show("what the archive adds to the bot itself", f"{more:.1f} MB", "3 MB")


async def asked(bot: Any, link: str, held: str, running: Any, show: Show) -> None:
    """Measure /search of a bot with a Discord: ``link`` is to a file with "giraffe" in
    its name, ``held`` to files that download slowly, of which ``running`` counts."""
    fake = bot.fake
    place = fake.channel.id

    async def finds(words: str) -> bool:
        slash = await fake.slash(place, "search", {"query": words}, fake.owner.id)
        return bool((await fake.answered(slash)).embeds)

    request = await bot.ask(link)
    await bot.waited_ms(request, True)
    started_s = time.perf_counter()
    while not await finds("giraffe"):
        await asyncio.sleep(0.1)
    took_s = time.perf_counter() - started_s
    show("posted, to found by /search", f"{took_s:.1f} s", "5 s")
    for _ in range(5):
        await bot.ask(held)
    while running() < 5:
        await asyncio.sleep(0.05)
    acknowledged, answers = [], []
    for _ in range(30):
        started_s = time.perf_counter()
        slash = await fake.slash(place, "search", {"query": "giraffe"}, fake.owner.id)
        seen = fake.interactions[slash]
        await fake.wait_for(lambda seen=seen: seen.callback)
        acknowledged.append((time.perf_counter() - started_s) * 1000)
        await fake.answered(slash)
        answers.append((time.perf_counter() - started_s) * 1000)
    what = "/search, 5 downloads running: acknowledged (the slowest of 30); answered"
    text = f"{max(acknowledged):.0f} ms; median {statistics.median(answers):.0f} ms"
    show(what, text, "200 ms")


async def main() -> None:
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        await archived(Path(folder), lambda *row: print(*row, sep=" | ", flush=True))


if __name__ == "__main__":
    asyncio.run(main())
