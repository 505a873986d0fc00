"""Kills the bot again and again at random moments, and counts what was lost.

    python tests/tools/soak.py --jobs 200 --kills 100

A member pastes links while the bot is killed with `kill -9`, now only the bot, now all
its processes. In the end every link that was acknowledged must have been posted, once
and byte-identical, or have failed with a reason. `test_kill.py` runs a short one.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
sys.path[:0] = [str(folder) for folder in (ROOT, TESTS, TESTS / "support")]

from conftest import share_plugins_in
from discord_support import BotProcess, Stage, job_ids, link
from fake_discord import FakeDiscord

BURST = 4  # links that a member pastes before waiting for the answers
LIFE_S = 2.5  # the bot lives for a random time up to this
GALLERIES = 0.2  # of the links: they come slowly, and fill several messages


@dataclass
class Figures:
    jobs: int = 0  # acknowledged
    kills: int = 0
    posted: int = 0
    failed: int = 0  # with a reason
    reasons: list[str] = field(default_factory=list)  # of those
    galleries: int = 0  # of those, posted as several messages
    on_the_way: int = 0  # of these, begun while they were downloaded
    run_again: int = 0  # jobs whose attempt a kill ended
    sent_again: int = 0  # uploads whose answer a kill cut off
    lost: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)  # ended, and nobody was told
    posted_twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # not byte-identical or not whole
    left_in_temp: list[str] = field(default_factory=list)
    integrity: str = ""
    took_s: float = 0

    @property
    def ok(self) -> bool:
        bad = self.lost + self.untold + self.posted_twice + self.wrong
        return not bad + self.left_in_temp and self.integrity == "ok"


async def soak(
    stage: Stage, jobs: int, kills: int, seed: int, life_s: float = LIFE_S
) -> Figures:
    """Runs until so many links are acknowledged and so many kills are done, each in a
    random moment of a bot's first seconds."""
    chance, figures, started_s = random.Random(seed), Figures(), time.monotonic()
    process = BotProcess(stage)
    wanted: dict[int, list[str]] = {}  # by request: its files' steps
    pending: set[int] = set()

    def acknowledged() -> dict[str, int]:
        """The request of each job that the bot answered with the job's id, in a message
        that may have gone since."""
        return {
            job: message.replied_to.id
            for message in stage.fake.all_messages.values()
            if message.author is stage.fake.bot
            if message.replied_to and not message.files
            for job in job_ids(message)
        }

    async def paste() -> None:
        """Pastes links as long as the bot lives, never many more than are answered."""
        while len(acknowledged()) < jobs:
            for _ in range(BURST):
                steps = stage.images(chance.randint(1, 3))
                steps += [stage.image(chance.randint(4, 30))]
                each = [f"sleep={chance.uniform(0, 0.3):.2f}", *steps]
                if chance.random() < GALLERIES:
                    steps = stage.images(chance.randint(12, 16))
                    slow = f"sleep={chance.uniform(0.08, 0.12):.2f}"
                    each = [one for step in steps for one in (slow, step)]
                request = await stage.says(f"$download {link(*each)}")
                wanted[request.id] = steps
                pending.add(request.id)
            await stage.fake.wait_for(enough_answers)

    def enough_answers() -> bool:
        return len(pending - set(acknowledged().values())) <= BURST // 2

    stage.keep_status_messages(False)
    # Discord takes its time: a kill finds uploads that have arrived, unanswered.
    stage.fake.fault("upload", "hang_answer", times=10**9, for_s=0.15)
    try:
        while figures.kills < kills or len(acknowledged()) < jobs:
            await process.start()
            pending.clear()  # what nobody answered was never promised
            pasting = asyncio.create_task(paste())
            await asyncio.sleep(chance.uniform(0.05, life_s))
            pasting.cancel()
            await asyncio.wait([pasting])
            await process.kill(chance.choice(["bot", "bot and server", "tree"]))
            await process.family_ended()
            figures.kills += 1
        await process.start()

        def unsettled() -> list[str]:
            said = stage.said()
            done = {job for m in said for job in job_ids(m) if ended(m.content)}
            files = Counter(f.filename.split("_")[-2] for m in said for f in m.files)
            done |= {
                job
                for job, request in acknowledged().items()
                if files[job] >= len(wanted[request])
            }
            return [job for job in acknowledged() if job not in done]

        with contextlib.suppress(TimeoutError):
            await stage.fake.wait_for(lambda: not unsettled(), 120)
        figures.untold = unsettled()
        process.terminate()
        await process.ended(25)
    finally:
        await process.kill()

    promised = acknowledged()
    rows = stage.database("SELECT id, status, error, attempts, detail FROM jobs")
    status = {row[0]: row[1] for row in rows}
    figures.run_again = sum(row[3] > 1 for row in rows)
    figures.sent_again = stage.requested("upload") - len(stage.posted())
    figures.jobs = len(promised)
    figures.posted = sum(status.get(job) == "completed" for job in promised)
    figures.reasons = [row[4] for row in rows if row[1] == "failed" and row[2]]
    figures.failed = len(figures.reasons)
    several = [job for job, request in promised.items() if len(wanted[request]) > 10]
    figures.galleries = sum(status.get(job) == "completed" for job in several)
    firsts = [m for m in stage.posted() if " · first " in m.content]
    figures.on_the_way = len(firsts)
    names = Counter(f.filename for m in stage.posted() for f in m.files)
    figures.posted_twice = [name for name, count in names.items() if count > 1]
    contents = {f.filename: f.data for m in stage.posted() for f in m.files}
    for job, request in promised.items():
        got = [contents[name] for name in sorted(contents) if f"_{job}_" in name]
        if status.get(job) not in ("completed", "failed"):
            figures.lost.append(job)
        whole = [stage.bytes_of(step) for step in wanted[request]]
        if status.get(job) == "completed" and got != whole:
            figures.wrong.append(job)
    temp = (stage.folder / "data" / "temp").iterdir()
    figures.left_in_temp = [p.name for p in temp if status.get(p.name) != "queued"]
    figures.integrity = stage.database("PRAGMA integrity_check")[0][0]
    figures.took_s = round(time.monotonic() - started_s, 1)
    return figures


def ended(text: str) -> bool:
    return text.startswith(("Done in", "**Download failed**"))


async def main(jobs: int, kills: int, seed: int, life_s: float) -> int:
    # The fake is told of every connection that a kill cuts.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        media, own = Path(folder, "media"), Path(folder, "stage")
        media.mkdir()
        own.mkdir()
        share_plugins_in(Path(folder, "ours"))
        async with FakeDiscord() as fake:
            stage = Stage(fake, media, own)
            figures = await soak(stage, jobs, kills, seed, life_s)
    print(json.dumps({"seed": seed, **vars(figures)}, indent=2))
    return 0 if figures.ok else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--life-s", type=float, default=LIFE_S)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    sys.exit(asyncio.run(main(**vars(parser.parse_args()))))
