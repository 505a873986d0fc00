"""Galleries of several messages: full ones are posted while the rest is downloaded, and
whatever happens on the way, each file is posted once."""

import asyncio
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins._bench import Later
from bossbot_plugins.local_worker import LocalWorker
from conftest import make_job
from discord_support import (
    BotProcess,
    Stage,
    Whom,
    job_at,
    job_id,
    job_when,
    link,
    module,
)

from bossbot import BossBot, Cause, Fetched, Job, JobFailed, MediaFile, Status

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"

MIB = 2**20


def be_early(bot: BossBot, early_s: float = 0.05) -> Any:
    """Lets a bot post the first files soon; returns its worker."""
    worker: Any = bot.app.worker
    worker.early_s, worker.retry_wait_s = early_s, 0.02
    bot.app.courier.retry_wait_s = 0.02  # type: ignore[attr-defined]
    return worker


def gallery(stage: Stage, *after: str, count: int = 25, gate: str = "wait=gate") -> str:
    """A link to so many pictures, which stands still after the eleventh."""
    steps = stage.images(count)
    return link(
        stage.facts("items", title="Many", items=count),
        *(*steps[:11], gate, *steps[11:], *after),
    )


def contents(stage: Stage, place: int | None = None) -> list[bytes]:
    return [file.data for message in stage.posted(place) for file in message.files]


def wanted(stage: Stage, count: int = 25) -> list[bytes]:
    return [stage.bytes_of(step) for step in stage.images(count)]


# What is posted when


async def test_full_message_is_posted_while_the_rest_is_downloaded(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        [first] = await stage.gets(10)
        status = await stage.hears("Downloading · 10 posted")
        assert " · first 10 of 25 files, " in first.content
        assert "Many" in first.content and "toy.example" in first.content
        [job] = await bot.app.queue.list()
        assert (job.status, job.posted) == ("downloading", 10)
        stage.open_gate("gate")
        messages = await stage.gets(25)
        await stage.fake.wait_for(lambda: "Done in" in status.content)
        job = await job_at(bot, job.id, Status.COMPLETED)
    assert "25 files" in status.content
    assert contents(stage) == wanted(stage)
    assert [len(message.files) for message in messages] == [10, 10, 5]
    assert re.fullmatch(
        r"\(2(/3)?\)", messages[1].content
    )  # by then it is known or not
    assert messages[2].content == "(3/3)"
    assert (job.file_count, job.total_bytes) == (25, sum(map(len, wanted(stage))))
    folder = stage.folder / "data" / job.folder
    kept = sorted((folder / "content").iterdir())
    assert [path.read_bytes() for path in kept] == wanted(stage)
    named = json.loads((folder / "metadata.json").read_text())["files"]
    assert [one["name"] for one in named] == [path.name for path in kept]
    assert not list((stage.folder / "data" / "temp").iterdir())


async def test_several_messages_are_posted_on_the_way(stage: Stage) -> None:
    steps = stage.images(32)
    url = link(*steps[:11], "wait=one", *steps[11:31], "wait=two", steps[31])
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {url}")
        await stage.gets(10)
        stage.open_gate("one")
        messages = await stage.gets(30)
        await stage.hears("Downloading · 30 posted")
        assert " · first 10 files, " in messages[0].content
        assert [message.content for message in messages[1:]] == ["(2)", "(3)"]
        stage.open_gate("two")
        messages = await stage.gets(32)
        await stage.hears("Done in")
    assert messages[3].content == "(4/4)"
    assert contents(stage) == wanted(stage, 32)


async def test_first_files_of_a_slow_post_do_not_wait_for_a_full_message(
    stage: Stage,
) -> None:
    steps = stage.images(3)
    async with stage.bot() as bot:
        be_early(bot).patience_s = 0
        await stage.says(f"$download {link(*steps[:2], 'wait=gate', steps[2])}")
        [first] = await stage.gets(1)  # the second may be the last one
        assert "first 1 file" in first.content
        stage.open_gate("gate")
        await stage.gets(3)
        await stage.hears("Done in")
    assert contents(stage) == wanted(stage, 3)


@pytest.mark.parametrize(
    ("items", "left"),
    [(8, 12.0), (2, 0), (None, math.inf), (1, 0)],  # the last one with its subtitles
)
def test_post_that_is_almost_there_is_worth_a_wait(
    items: int | None, left: float
) -> None:
    fetched = Fetched([Path("1"), Path("2")], {"items": items} if items else {})
    assert module("local_worker").left_s(fetched, 2.0) == left


async def test_gallery_that_comes_at_once_is_posted_as_a_whole(stage: Stage) -> None:
    async with stage.bot() as bot:
        be_early(bot, 60)
        await stage.says(f"$download {link(*stage.images(25))}")
        messages = await stage.gets(25)
        await stage.hears("Done in")
    assert " · 25 files, " in messages[0].content
    assert [message.content for message in messages[1:]] == ["(2/3)", "(3/3)"]


async def test_large_files_fill_a_message_before_ten_do(stage: Stage) -> None:
    steps = [stage.padded(9 * MIB, number) for number in range(1, 5)]
    url = link(*steps[:3], "wait=gate", steps[3])
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {url}")
        [first] = await stage.gets(2)
        stage.open_gate("gate")
        await stage.gets(4)
    assert len(first.files) == 2
    assert contents(stage) == [stage.bytes_of(step) for step in steps]


async def test_message_that_is_full_without_more_to_come_waits_for_the_end(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {link(*stage.images(10), 'wait=gate')}")
        status = await stage.hears("gate.mp4")
        edits = len(status.versions)
        await stage.fake.wait_for(lambda: len(status.versions) > edits + 3)
        assert not stage.posted()
        stage.open_gate("gate")
        [message] = await stage.gets(10)
    assert " · 10 files, " in message.content


async def test_plugins_see_each_part_once_with_what_is_known_of_it(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "watch.py", stage.plugins)
    steps = stage.images(12)
    facts = stage.facts("adult", adult=True)
    async with stage.bot() as bot:
        be_early(bot)
        url = link(*steps[:10], facts, steps[10], "wait=gate", steps[11])
        await stage.says(f"$download {url}")
        await stage.gets(10)
        stage.open_gate("gate")
        await stage.gets(12)
    assert module("watch").seen == [
        *(("process", True, 10), ("upload", True, 10)),
        *(("process", True, 2), ("upload", True, 2)),
    ]
    files = wanted(stage, 12)
    assert contents(stage) == files[:10][::-1] + files[10:][::-1]


async def test_items_that_fail_are_told_in_the_last_message(stage: Stage) -> None:
    steps = stage.images(13)
    (stage.media / "empty.jpg").write_bytes(b"")
    lost = stage.facts("items", items=16)
    url = link(lost, *steps[:3], "file=empty.jpg", *steps[3:12], "wait=gate")
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {url}/lose=gone/{steps[12]}")
        await stage.gets(9)
        stage.open_gate("gate")
        messages = await stage.gets(13)
        await stage.hears("Done in")
    assert [len(message.files) for message in messages] == [9, 4]
    assert "could not be fetched" not in messages[0].content
    assert messages[1].content.split("\n") == [
        "(2/2)",
        "13 of 15, 2 could not be fetched (gone, no media).",
        "The first 15 of 16.",
    ]
    assert contents(stage) == wanted(stage, 13)


async def test_files_that_are_too_large_are_told_and_the_others_posted(
    stage: Stage,
) -> None:
    steps = stage.images(12)
    large = stage.padded(2 * MIB)
    url = link(*[large] * 10, *steps[:11], "wait=gate", large, steps[11])
    async with stage.bot(max_file_size=MIB) as bot:
        be_early(bot)
        await stage.says(f"$download {url}")
        await stage.gets(10)
        stage.open_gate("gate")
        await stage.gets(12)
        status = await stage.hears("Done in")
        courier: Any = bot.app.courier
        assert courier.files == {"attached": 12, "linked": 0, "dropped": 11}
    said = "\n".join(message.content for message in stage.said())
    names = set(re.findall(r"Too large for this channel: (\S+)", said))
    assert len(names) == 11
    kept = {path.name for path in (stage.folder / "data").rglob("content/*")}
    assert len(kept) == 23 and names < kept
    assert "12 files" in status.content
    assert contents(stage) == wanted(stage, 12)


async def test_nothing_but_files_that_are_too_large_is_a_failure(stage: Stage) -> None:
    large = stage.padded(3 * MIB)
    url = link(*[large] * 11, "wait=gate", large)
    async with stage.bot(max_file_size=2 * MIB) as bot:
        be_early(bot)
        await stage.says(f"$download {url}")
        await stage.hears("Too large for this channel")
        stage.open_gate("gate")
        await stage.hears("**Download failed** (too_large)", "Too large")
    assert not stage.posted()


# Ends on the way


async def test_failure_tells_how_many_were_posted(stage: Stage) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        for items in (25, None):
            facts = [stage.facts("items", items=items)] if items else []
            gate = f"gate{items}"
            url = link(*facts, *stage.images(11), f"wait={gate}", "fail=gone")
            after = (await stage.says(f"$download {url}")).id
            await stage.hears("10 posted", after=after)
            stage.open_gate(gate)
            count = "10 of 25 files were posted, then: " if items else "10 files were "
            told = ("**Download failed** (gone)", count, "deleted or never")
            await stage.hears(*told, after=after)
            job = (await bot.app.queue.list())[-1]
            assert (job.cause, job.attempts, job.posted) == (Cause.GONE, 1, 10), items
    assert len(stage.posted()) == 2
    assert not list((stage.folder / "data" / "temp").iterdir())


async def test_what_was_frozen_is_posted_before_the_failure_is_told(
    stage: Stage,
) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        be_early(bot)
        url = link(*stage.images(11), "wait=gate", "fail=gone")
        await stage.says(f"$download {url}")
        await stage.fake.wait_for(lambda: fault.hits)
        stage.open_gate("gate")
        fault.release()
        await stage.hears("10 files were posted, then: ")
    assert len(stage.posted()) == 1


@pytest.mark.parametrize("reason", ["Enough for today.", "Attach Files"])
async def test_no_more_is_downloaded_for_a_channel_that_takes_no_more(
    stage: Stage, reason: str
) -> None:
    if reason != "Attach Files":
        shutil.copy(PLUGINS / "shut.py", stage.plugins)
    steps = stage.images(25)
    async with stage.bot() as bot:
        be_early(bot)
        url = link(*steps[:11], "wait=one", *steps[11:21], "wait=never")
        await stage.says(f"$download {url}")
        await stage.gets(10)
        if reason == "Attach Files":
            await stage.fake.deny(stage.channel_id, "attach_files")
        stage.open_gate("one")
        await stage.hears("(permission)", "10 of 20 files were posted", reason)
        assert not bot.app.runner.running  # type: ignore[attr-defined]
    assert len(stage.posted()) == 1


async def test_size_of_all_files_counts_those_that_are_posted(stage: Stage) -> None:
    steps = [stage.padded(MIB, number) for number in range(1, 16)]
    async with stage.bot(max_job_size=14 * MIB) as bot:
        be_early(bot)
        url = link(*steps[:11], "wait=gate", *steps[11:])
        await stage.says(f"$download {url}")
        await stage.gets(10)
        stage.open_gate("gate")
        await stage.hears("(too_large)", "10 files were posted, then: ")
    assert len(stage.posted()) == 1


async def test_cancelled_gallery_stops_and_says_how_many_are_there(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        await stage.gets(10)
        status = await stage.hears("10 posted")
        job = job_id(status)
        assert await bot.app.queue.cancel(job)
        await stage.fake.wait_for(lambda: "Cancelled · 10 posted" in status.content)
        await job_when(bot, job, lambda stored: not stored.folder)
        await asyncio.gather(*bot.app.worker.running.values())  # type: ignore[attr-defined]
        assert not bot.app.runner.running  # type: ignore[attr-defined]
    assert len(stage.posted()) == 1
    assert not list((stage.folder / "data" / "temp").iterdir())
    assert not list((stage.folder / "data" / "downloads").rglob("*.jpg"))


async def test_lost_claim_ends_download_and_posting(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        await stage.fake.wait_for(lambda: fault.hits)
        sql = "UPDATE jobs SET claim_number = claim_number + 1"
        await bot.app.database.all(sql)
        fault.release()
        await asyncio.gather(*bot.app.worker.running.values())  # type: ignore[attr-defined]
        assert not bot.app.runner.running  # type: ignore[attr-defined]
    assert len(stage.posted()) == stage.requested("upload") == 1


# Going on


async def test_next_try_posts_only_what_is_missing(stage: Stage) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage, 'busy=later')}")
        job = job_id(await stage.hears("Downloading"))
        await stage.gets(10)
        stage.open_gate("gate")
        await job_when(bot, job, lambda stored: stored.attempts == 2)
        stage.open_gate("later")
        done = await job_at(bot, job, Status.COMPLETED)
    assert contents(stage) == wanted(stage)
    assert [post.state for post in done.posts] == ["sent"] * 3
    assert (done.file_count, done.total_bytes) == (25, sum(map(len, wanted(stage))))
    assert stage.posted()[2].content == "(3/3)"


CHANGES = {
    "one is gone": ("1 2 3 4 5 6 7 8 9 10 11 12", "2 3 4 5 6 7 8 9 10 11 12"),
    "one is new": ("1 2 3 4 5 6 7 8 9 10 11 12", "20 1 2 3 4 5 6 7 8 9 10 11 12"),
    "reversed": ("1 2 3 4 5 6 7 8 9 10 11 12", "12 11 10 9 8 7 6 5 4 3 2 1"),
    "the same ones": ("1 1 1 1 1 1 1 1 1 1 1 2", "1 1 1 1 1 1 1 1 1 1 1 2"),
    "made anew": (
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "21 22 23 24 25 26 27 28 29 30 13 14",
    ),
}


async def test_gallery_that_changed_meanwhile_has_nothing_twice(stage: Stage) -> None:
    """Its eleventh and twelfth file were not posted the first time."""
    async with stage.bot() as bot:
        worker = be_early(bot)
        retry_in = worker._retry_in
        for number, (how, sides) in enumerate(CHANGES.items()):
            print(how)  # shown when it fails
            old, new = ([stage.image(int(one)) for one in s.split()] for s in sides)
            gate, place = f"gate{number}", (await stage.fake.add_channel(how)).id
            step = stage.steps(how, *old[:11], f"wait={gate}", old[11], "busy=never")
            await stage.says(f"$download {link(step)}", place)
            job = job_id(await stage.hears("Downloading", channel_id=place))
            await stage.gets(10, place)

            async def change(*known: Any, how: str = how, new: Any = new) -> Any:
                stage.steps(how, *new)
                return await retry_in(*known)

            worker._retry_in = change
            stage.open_gate(gate)
            await job_at(bot, job, Status.COMPLETED)
            posted, left = old[:10], [*new]
            for one in posted:
                if one in left:
                    left.remove(one)
            if len(left) == len(new):  # what the site made anew is known by its place
                left = left[10:]
            found = contents(stage, place)
            assert found == [stage.bytes_of(one) for one in posted + left]


async def test_413_on_the_way_is_learnt_and_the_rest_goes_on(stage: Stage) -> None:
    stage.fake.guild.upload_limit_bytes = 7 * MIB
    steps = stage.images(30)
    large = stage.padded(9 * MIB)
    url = link(*steps[:4], large, *steps[4:10], "wait=gate", *steps[10:])
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {url}")
        messages = await stage.gets(9)
        assert len(messages) == 5  # the large one and those before it were sent apart
        stage.open_gate("gate")
        await stage.gets(30)
        status = await stage.hears("Done in")
    assert "30 files" in status.content
    assert contents(stage) == wanted(stage, 30)
    said = "\n".join(message.content for message in stage.said())
    assert said.count("Too large for this channel") == 1
    assert said.count("· first ") == 1


@pytest.mark.parametrize("whom", ["bot", "tree"])
async def test_kill_on_the_way_posts_every_file_once(
    stage: Stage, process: BotProcess, whom: Whom
) -> None:
    """While the first message is sent, before its answer is heard, and after it."""
    fake, url = stage.fake, gallery(stage)
    places = [stage.channel_id]
    places += [(await fake.add_channel(name)).id for name in ("two", "three")]
    faults = [fake.fault("upload", action) for action in ("hang", "hang_answer")]
    await process.start(max_concurrent_per_user="3", max_concurrent_downloads="3")
    for place, fault in zip(places, [*faults, None], strict=True):
        await stage.says(f"$download {url}", place)
        if fault:
            await fake.wait_for(lambda fault=fault: fault.hits)
        if place != places[0]:
            await stage.gets(10, place)
    await stage.hears("10 posted", channel_id=places[2])
    assert not stage.posted()
    await process.kill(whom)
    for fault in faults:
        fault.release()
    await process.family_ended()
    stage.open_gate("gate")
    await process.start()
    for place in places:
        await stage.gets(25, place)
        await stage.hears("Done in", "25 files", channel_id=place)
    process.terminate()
    assert await process.ended() == 0
    for number, place in enumerate(places):
        assert contents(stage, place) == wanted(stage), number
        assert len(stage.posted(place)) == 3, number
    ended = stage.database("SELECT status, file_count FROM jobs")
    assert ended == [("completed", 25)] * 3
    assert not list((stage.folder / "data" / "temp").iterdir())


async def test_stop_on_the_way_leaves_what_is_posted_and_goes_on_later(
    stage: Stage,
) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        await stage.gets(10)
        await stage.hears("10 posted")
    assert stage.database("SELECT status, crashes FROM jobs") == [("queued", 0)]
    stage.open_gate("gate")
    async with stage.bot() as bot:
        await stage.gets(25)
        await stage.hears("Done in", "25 files")
    assert contents(stage) == wanted(stage)


async def test_stop_while_a_part_is_sent_posts_it_once(stage: Stage) -> None:
    fault = stage.fake.fault("upload", "hang_answer")
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        await stage.gets(10)
    fault.release()
    assert [post["state"] for post in stage.posts()] == ["sending"]
    stage.fake.nonce_window_s = 0
    stage.open_gate("gate")
    async with stage.bot():
        await stage.gets(25)
        await stage.hears("Done in", "25 files")
    assert contents(stage) == wanted(stage)


@pytest.mark.parametrize("sent", [True, False])
async def test_kept_files_of_a_part_that_are_gone(stage: Stage, sent: bool) -> None:
    """They are downloaded again as long as nothing was sent."""
    fault = stage.fake.fault("upload", "hang")
    async with stage.bot() as bot:
        be_early(bot)
        await stage.says(f"$download {gallery(stage)}")
        await stage.fake.wait_for(lambda: fault.hits)
    fault.release()
    for path in (stage.folder / "data" / "downloads").rglob("*_03.jpg"):
        path.unlink()
    if sent:
        posts = stage.posts()
        first = {**posts[0], "state": "sent", "message_id": 1, "files": {}}
        posts[0]["number"] = 2
        stage.database("UPDATE jobs SET posts = ?", json.dumps([first, posts[0]]))
    stage.open_gate("gate")
    async with stage.bot():
        if sent:
            await stage.hears("**Download failed** (internal)")
            assert not stage.posted()
            return
        await stage.gets(25)
        await stage.hears("Done in", "25 files")
    assert contents(stage) == wanted(stage)


async def test_other_engine_is_not_asked_after_files_were_posted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.bot() as bot:
        be_early(bot)
        asked: list[Any] = []

        async def supports(urls: Any, **how: Any) -> list[str]:
            asked.append(urls)
            return ["toy"]

        monkeypatch.setattr(bot.app.runner, "supports", supports)
        url = link(*stage.images(11), "wait=gate", "fail=no_media")
        await stage.says(f"$download {url}")
        await stage.gets(10)
        asked.clear()
        stage.open_gate("gate")
        await stage.hears("(no_media)", "10 files were posted, then: ")
        assert not asked


def test_file_is_known_by_what_it_holds_and_then_by_its_place(tmp_path: Any) -> None:
    def files(*named: str) -> list[MediaFile]:
        pairs = [one.split(":") for one in named]
        return [MediaFile(tmp_path / f"x_{n}.jpg", 1, sha, "") for n, sha in pairs]

    not_posted = module("local_worker").not_posted
    for sources, found, left in [
        ([], ["1:a", "2:b"], ["1:a", "2:b"]),
        (["1:a"], ["1:a", "2:b"], ["2:b"]),
        (["1:a"], ["1:b", "2:a"], ["1:b"]),
        (["1:a"], ["1:x", "2:b"], ["2:b"]),
        (["1:a", "2:a"], ["1:a", "2:a", "3:a"], ["3:a"]),
        (["1:a", "2:b"], ["1:b", "2:c"], ["2:c"]),
        (["1:a", "2:b"], [], []),
    ]:
        known = [one.split(":") for one in sources]
        assert not_posted(files(*found), known) == files(*left), (sources, found)


async def test_what_would_have_to_be_encoded_goes_with_the_rest(tmp_path: Path) -> None:
    """None of it is lost, nor told twice."""

    async def set_apart(job: Job, names: list[str]) -> Path:
        return tmp_path

    async def inspect(path: Path, folder: Path) -> MediaFile:
        if path.name == "2":
            raise JobFailed(Cause.NO_MEDIA)
        return MediaFile(path, 1, "", "image/png")

    async def freeze(*_: Any) -> None:
        raise Later

    worker: Any = LocalWorker.__new__(LocalWorker)
    storage = SimpleNamespace(set_apart=set_apart, inspect=inspect)
    courier = SimpleNamespace(split=lambda files: [files[:2], files[2:]])
    worker.app = SimpleNamespace(storage=storage, courier=courier)
    worker._freeze = freeze
    fetched = Fetched([tmp_path / name for name in "123"], folder=tmp_path)
    going_on: Any = asyncio.get_running_loop().create_future()
    job = make_job(status=Status.DOWNLOADING)
    assert not await worker._post_some(job, fetched, going_on, late=False)
    assert (fetched.checked, fetched.files, fetched.failures) == (0, [], [])
