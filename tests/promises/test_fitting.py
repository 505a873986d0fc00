"""What is too large, or plays nowhere, reaches the channel so that it fits and plays; and
if it cannot, the reason and the source do, with all the rest."""

import asyncio
import contextlib
import os
from pathlib import Path

import media
import pytest
from bossbot_plugins._mp4 import read_mp4
from discord_support import Stage, job_id, job_when, link, until

from bossbot import Status

pytest_plugins = ("discord_fixtures",)

ENCODER = """#!/bin/sh
case "$*" in *libx264*) exec sleep 600;; esac
exec {ffmpeg} "$@"
"""


@pytest.fixture
def fitting(stage: Stage) -> Stage:
    """With the plugins that make files fit."""
    for name in ("fit", "pictures", "split"):
        stage.add_plugin(name)
    return stage


def video(stage: Stage, kind: str = "webm") -> str:
    """The step of a small video that does not play everywhere."""
    return f"file={media.video(stage.media, kind=kind, sound=False).name}"


def long_video(stage: Stage) -> str:
    """The step of one that looks acceptable only in two files of 12,000 bytes."""
    pattern = "smptebars=s=320x240:r=5:d=12,hue=h=9*t"
    outputs = {"long.mp4": [*media.X264, "-crf", "51", "-g", "10"]}
    [made] = media.made_of(["-f", "lavfi", "-i", pattern], stage.media, outputs)
    return f"file={made.name}"


@pytest.fixture
def slow(fitting: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """With an encoder that never ends."""
    folder = fitting.media / "slow"
    folder.mkdir(exist_ok=True)
    for path in os.environ["PATH"].split(os.pathsep):
        if (real := Path(path, "ffmpeg")).is_file() and folder.name not in path:
            (folder / "ffmpeg").write_text(ENCODER.format(ffmpeg=real))
            (folder / "ffmpeg").chmod(0o755)
            break
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return fitting


def encoders(stage: Stage) -> int:
    """How many of them run for the bot of this test."""
    count = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = (path / "cwd").readlink().is_relative_to(stage.folder)
            count += mine and (path / "cmdline").read_bytes().startswith(b"sleep")
    return count


async def encoding(stage: Stage) -> None:
    async with asyncio.timeout(60):
        while not encoders(stage):
            await asyncio.sleep(0.01)


async def test_parts_of_a_long_video_are_counted_in_their_messages(
    fitting: Stage,
) -> None:
    url = link(long_video(fitting))
    async with fitting.bot(max_file_size=12_000) as bot:
        await fitting.says(f"$download {url}")
        messages = await fitting.gets(2, timeout_s=300)  # encoders give way to all
        status = await fitting.hears("Done in")
        job = await job_when(bot, job_id(status), lambda job: job.finished_at > 0)
    files = [file for message in messages for file in message.files]
    text = "\n".join(message.content for message in messages)
    assert f"<{url}>" in text or f"({url})" in text or f"(<{url}>)" in text
    assert "part 1 of 2" in text and "part 2 of 2" in text
    for number, file in enumerate(files):
        path = fitting.folder / f"{number}.mp4"
        path.write_bytes(file.data)
        boxes = read_mp4(path)
        assert boxes and boxes.plays and len(file.data) <= 12_000
    assert (job.file_count, len(job.sources)) == (2, 1)


async def test_damaged_file_is_told_and_the_others_are_posted(fitting: Stage) -> None:
    whole = media.image(fitting.media, 5, "png")
    (fitting.media / "cut.png").write_bytes(whole.read_bytes()[:-20])
    async with fitting.bot():
        await fitting.says(f"$download {link('file=cut.png', fitting.image())}")
        [message] = await fitting.gets(1)
        await fitting.says(f"$download {link('file=cut.png')}")
        failed = await fitting.hears("(no_media)", after=message.id)
    assert "cut short" in message.content and "cut short" in failed.content
    assert message.files[0].data == fitting.bytes_of(fitting.image())


async def test_without_ffmpeg_what_fits_is_posted_and_the_rest_is_linked(
    fitting: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = media.padded_video(fitting.media, 60_000)
    steps = [video(fitting), fitting.padded(60_000), f"file={large.name}"]
    monkeypatch.setenv("PATH", str(fitting.folder))
    async with fitting.bot(max_file_size=50_000):
        await fitting.says(f"$download {link(*steps)}")
        [message] = await fitting.gets(1)
    assert message.files[0].data == fitting.bytes_of(steps[0])
    assert message.content.count("needs ffmpeg, which is missing here") == 2


async def test_cancel_ends_the_encoder_at_once(slow: Stage) -> None:
    async with slow.bot() as bot:
        await slow.says(f"$download {link(video(slow))}")
        await encoding(slow)
        [job] = await bot.app.queue.list()
        await bot.app.queue.cancel(job.id)
        await until(lambda: asyncio.sleep(0, not encoders(slow)))
        await slow.hears("Cancelled")
    assert not slow.posted()


async def test_encoder_that_takes_too_long_ends_in_the_source(slow: Stage) -> None:
    url = link(video(slow), slow.image())
    async with slow.bot(process_timeout_s=5) as bot:
        await slow.says(f"$download {url}")
        [message] = await slow.gets(1)
        assert not bot.app.plugins.all["fit"].failures
        alone = link(video(slow))
        await slow.says(f"$download {alone}")
        failed = await slow.hears("(timed_out)", after=message.id)
    assert message.files[0].data == slow.bytes_of(slow.image())
    for said in (message, failed):
        assert "took longer than 5 s, so it was stopped" in said.content
    assert f"<{alone}>" in failed.content
    async with asyncio.timeout(60):
        while encoders(slow):
            await asyncio.sleep(0.01)


async def test_small_links_go_past_a_long_encode(slow: Stage) -> None:
    one = {"max_concurrent_downloads": 1, "max_concurrent_per_user": 1}
    async with slow.bot(**one, max_concurrent_per_guild=1) as bot:
        # A gallery with such a video is posted when all of it is there.
        steps = [video(slow), *slow.images(10), "wait=gate"]
        await slow.says(f"$download {link(*steps)}")
        slow.open_gate("gate")
        await encoding(slow)
        [job] = await bot.app.queue.list()
        assert job.status is Status.PROCESSING
        member = slow.fake.member
        other = slow.fake.add_member("Other")
        slow.fake.member = other
        await slow.says(f"$download {link(slow.image(7))}")
        [message] = await slow.gets(1)
        slow.fake.member = member
        assert message.files[0].data == slow.bytes_of(slow.image(7))
        assert encoders(slow) == 1
        await bot.app.queue.cancel(job.id)
