"""The workbench of ``process_files``, with the real ffmpeg and ffprobe."""

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import media
import pytest
import pytest_asyncio
from bossbot_plugins._bench import JobBench, Later
from conftest import PARTS, make_job, our_plugins, spread
from hypothesis import given
from hypothesis import strategies as st

import bossbot
from bossbot import (
    App,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Probe,
    Progress,
    Ran,
    Settings,
    Status,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """With the runner warm, for all tests here."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "own").mkdir()
    values = {"data_dir": folder / "data", "plugins_dir": folder / "own"}
    app = App(Settings(**spread(values)), our_plugins(*PARTS))
    app.plugins.load()
    bossbot.prepare_data(app.settings.data_dir)
    yield app
    await app.stop()


class Table:
    """A bench, its folder, and what it reported."""

    def __init__(self, app: App, folder: Path, job: Job) -> None:
        self.app = app
        self.folder = folder / "files"
        self.seen: list[Progress] = []
        self.bench = JobBench(app, job, self.folder, self.seen.append)

    async def put(self, made: Path) -> MediaFile:
        """A copy of a file, as one that the job has downloaded."""
        path = self.folder / f"from-{made.name}"
        shutil.copyfile(made, path)
        return await self.app.storage.inspect(path, self.folder)


@pytest_asyncio.fixture(loop_scope="module")
async def table(app: App) -> Table:
    job = make_job(limit_bytes=1000, claim_number=1)
    return Table(app, await app.storage.attempt_folder(job), job)


def processes_of(folder: Path) -> list[int]:
    """The processes that name a folder, or live in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            here = (path / "cwd").readlink()
            if str(folder).encode() in words or here.is_relative_to(folder):
                found.append(int(path.name))
    return found


def make(*argv: str | Path) -> None:
    """Run ffmpeg as anyone does."""
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *argv], check=True)


async def until(condition: Callable[[], Any], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


# Paths and files


async def test_limit_is_that_of_the_channel_or_the_owners(
    app: App, table: Table
) -> None:
    assert table.bench.limit_bytes == 1000
    bench = JobBench(app, make_job(), table.folder, table.seen.append)
    assert bench.limit_bytes == app.settings.max_file_size


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
    | st.sampled_from(["..", "/etc/passwd", "~", "x" * 300])
)
async def test_path_is_safe_whatever_the_name(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    app: Any = dataclasses.make_dataclass("App", ["settings"])(Settings())
    bench = JobBench(app, make_job(id="0123456789"), folder, print)
    path = bench.path(name)
    assert path.parent == folder
    assert re.fullmatch(r"0123456789-001-[\w.-]{0,60}", path.name, re.ASCII)
    path.touch()
    path.unlink()


async def test_paths_of_one_name_differ_and_keep_their_ending(table: Table) -> None:
    paths = [table.bench.path("small.mp4") for _ in range(3)]
    assert len(set(paths)) == 3 and {path.suffix for path in paths} == {".mp4"}
    assert not any(path.exists() for path in paths)
    assert table.bench.path(f"{'x' * 300}.webm").suffix == ".webm"


async def test_file_that_was_written_there_is_checked(
    table: Table, media_folder: Path
) -> None:
    path = table.bench.path("a.jpg")
    content = media.image(media_folder).read_bytes()
    path.write_bytes(content)
    file = await table.bench.file(path)
    assert (file.path, file.size, file.mime) == (path, len(content), "image/jpeg")


async def test_file_that_is_none_fails_the_step(
    table: Table, media_folder: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copy(media.image(media_folder), tmp_path / "a.jpg")
    wrong = {name: table.bench.path(f"{name}.jpg") for name in ("gone", "empty")}
    wrong["empty"].touch()
    wrong["elsewhere"] = Path(elsewhere)
    wrong["up"] = table.folder / ".." / "home" / "a.jpg"
    shutil.copy(elsewhere, wrong["up"])
    wrong["link"] = table.bench.path("link.jpg")
    wrong["link"].symlink_to(elsewhere)
    wrong["folder"] = table.bench.path("folder.jpg")
    wrong["folder"].mkdir()
    wrong["page"] = table.bench.path("page.jpg")
    wrong["page"].write_text("<html></html>")
    for path in wrong.values():
        with pytest.raises(JobFailed) as caught:
            await table.bench.file(path)
        assert path.name in caught.value.detail


# ffmpeg


async def test_ffmpeg_makes_a_file_and_reports_the_share(
    table: Table, media_folder: Path
) -> None:
    bench, source = table.bench, await table.put(media.video(media_folder, seconds=4))
    path = bench.path("small.mp4")
    # At the speed of the film, so that something is left to report.
    argv = ["-readrate", "3", "-i", source.path, "-vf", "scale=48:32", "-an", path]
    await bench.ffmpeg(*argv, label="Making it small", length_s=4)
    file = await bench.file(path)
    assert file.mime == "video/mp4" and file.path == path
    shares = [progress.share for progress in table.seen]
    assert {progress.name for progress in table.seen} == {"Making it small"}
    assert shares[0] is None and len(shares) > 2
    known = [share for share in shares[1:] if share is not None]
    assert known == sorted(known) and len(known) == len(shares) - 1
    assert min(known) < 0.7 and 0.9 < max(known) <= 1
    assert (await bench.probe(file)).width == 48


async def test_share_is_unknown_without_a_length_and_never_above_1(
    table: Table, media_folder: Path
) -> None:
    source = await table.put(media.video(media_folder))
    argv = ["-i", source.path, "-f", "null", "-"]
    await table.bench.ffmpeg(*argv)
    assert {progress.share for progress in table.seen} == {None}
    assert {progress.name for progress in table.seen} == {"Making it fit"}
    table.seen.clear()
    await table.bench.ffmpeg(*argv, length_s=0.1)
    assert max(progress.share or 0 for progress in table.seen) == 1


async def test_ffmpeg_reads_several_files_and_replaces_what_is_there(
    table: Table, media_folder: Path
) -> None:
    picture = await table.put(media.image(media_folder))
    sound = await table.put(media.audio(media_folder))
    path = table.bench.path("out.mp4")
    path.write_text("in the way")
    await table.bench.ffmpeg(
        *("-loop", "1", "-i", picture.path, "-i", sound.path, "-shortest"),
        *("-pix_fmt", "yuv420p", "-metadata", "title=a: b", path),
    )
    probe = await table.bench.probe(await table.bench.file(path))
    assert (probe.video, probe.audio) == ("h264", "aac")


async def test_failed_ffmpeg_says_why_in_its_own_words(
    table: Table, media_folder: Path
) -> None:
    source = await table.put(media.video(media_folder))
    with pytest.raises(JobFailed) as caught:
        await table.bench.ffmpeg("-i", source.path, "-c:v", "nonsense", "out.mp4")
    assert caught.value.cause is Cause.INTERNAL
    assert "Unknown encoder 'nonsense'" in caught.value.detail
    assert "nonsense" not in str(caught.value)
    with pytest.raises(JobFailed, match="inside the bot") as caught:
        await table.bench.ffmpeg("-i", table.folder / "gone.mp4", "out.mp4")
    assert "No such file" in caught.value.detail
    with pytest.raises(JobFailed, match="disk is full"):
        await table.bench.ffmpeg("-i", source.path, "-f", "mp4", "/dev/full")


async def test_missing_ffmpeg_fails_with_its_name(
    table: Table, media_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await table.put(media.video(media_folder))
    monkeypatch.setitem(JobBench.ffmpeg.__globals__, "find_programs", dict)
    for name, use in (
        ("ffmpeg", table.bench.ffmpeg("-version")),
        ("ffprobe", table.bench.probe(source)),
    ):
        with pytest.raises(JobFailed) as caught:
            await use
        assert caught.value.detail == f"{name} is missing"


async def test_ffmpeg_cannot_fill_the_disk(
    app: App, table: Table, media_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await table.put(media.video(media_folder))
    small = app.settings.model_copy(update={"max_job_size": 100_000})
    monkeypatch.setattr(app, "settings", small)
    path = table.bench.path("big.avi")
    with pytest.raises(JobFailed):
        argv = ["-stream_loop", "100", "-i", source.path, "-c:v", "rawvideo", path]
        await table.bench.ffmpeg(*argv)
    assert path.stat().st_size <= 100_000


async def endless(table: Table, source: MediaFile) -> None:
    """An encoding that goes on until it is killed."""
    argv = ["-stream_loop", "-1", "-readrate", "1", "-i", source.path]
    await table.bench.ffmpeg(*argv, "-f", "null", "-", encodes=True)


async def test_encoder_waits_for_its_turn_and_never_begins_while_more_comes(
    app: App, table: Table, media_folder: Path
) -> None:
    source = await table.put(media.audio(media_folder))
    argv = ["-i", source.path, "-f", "null", "-"]
    turns = asyncio.Semaphore(1)
    seen: list[Progress] = []
    bench = JobBench(app, table.bench.job, table.folder, seen.append, turns)
    await turns.acquire()  # by another job
    encoding = asyncio.create_task(bench.ffmpeg(*argv, encodes=True))
    await table.bench.ffmpeg(*argv)  # which is no encoding
    assert not seen and not encoding.done()
    turns.release()
    await encoding
    assert seen
    early = make_job(status=Status.DOWNLOADING)
    bench = JobBench(app, early, table.folder, table.seen.append)
    with pytest.raises(Later):
        await bench.ffmpeg(*argv, encodes=True)


async def test_disk_that_is_full_is_told_from_other_failures(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = ["-f", "lavfi", "-i", "sine=d=1", "-f", "wav", "/dev/full"]
    command = ["ffmpeg", "-v", "error", "-y", *full]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True
    )
    for text, cause in (
        (ran.stderr, Cause.DISK_FULL),
        ("no such file", Cause.INTERNAL),
    ):

        async def run(*how: Any, text: str = text) -> Ran:
            return Ran(1, "", text)

        monkeypatch.setattr(table.app.runner, "run", run)
        with pytest.raises(JobFailed) as caught:
            await table.bench.ffmpeg("-version")
        assert caught.value.cause is cause


async def test_ffmpeg_is_killed_with_the_task_that_waits_for_it(
    table: Table, media_folder: Path
) -> None:
    source = await table.put(media.video(media_folder))
    working = asyncio.create_task(endless(table, source))
    attempt = table.folder.parent
    await until(lambda: len(table.seen) > 1)
    running = processes_of(attempt)
    assert len(running) == 2  # the child, and its ffmpeg
    idle = {os.sched_getscheduler(process) for process in running}
    assert idle == {os.SCHED_IDLE}
    [process, *_] = running
    with contextlib.suppress(FileNotFoundError):  # a kernel without it
        group = Path(f"/proc/{process}/autogroup").read_text()
        assert not group or group.endswith("nice 19\n"), "its session counts as one"
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await until(lambda: not processes_of(attempt))


async def test_ffmpeg_is_killed_when_a_member_cancels_the_job(
    app: App, media_folder: Path
) -> None:
    """The same, from the queue's change down to the process."""
    await app.database.start()
    worker: Any = app.worker
    job = make_job()
    await app.queue.add(job)
    claimed = await app.queue.claim("me", 60)
    assert claimed
    claimed.status = Status.PROCESSING
    table = Table(app, await app.storage.attempt_folder(claimed), claimed)
    source = await table.put(media.video(media_folder))
    worker._spawn(claimed, endless(table, source))
    dispatching = asyncio.create_task(worker._dispatch())
    try:
        await until(lambda: len(table.seen) > 1)
        await app.queue.cancel(job.id)
        await until(lambda: not processes_of(table.folder.parent))
    finally:
        dispatching.cancel()
    stored = await app.queue.get(job.id)
    assert stored and stored.status is Status.CANCELLED


# What is opened


def plainly(*argv: str | Path) -> bool:
    """Whether ffprobe opens a file when nothing guards it."""
    done = subprocess.run(["ffprobe", "-v", "error", *argv], capture_output=True)
    return done.returncode == 0


def playlist(secret: Path) -> str:
    lines = ("#EXTM3U", "#EXT-X-TARGETDURATION:1", "#EXTINF:1,", f"file://{secret}")
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])


def script(secret: Path) -> str:
    return f"ffconcat version 1.0\nfile {secret.name}\n"


@pytest.mark.parametrize("disguise", [playlist, script])
async def test_playlist_disguised_as_video_leads_to_no_other_file(
    table: Table, media_folder: Path, disguise: Callable[[Path], str]
) -> None:
    secret = table.folder / "secret.ts"
    source = media.video(media_folder)
    shutil.copyfile(media.converted(source, "secret.ts", "-c", "copy"), secret)
    fake = table.bench.path("video.mp4")
    fake.write_text(disguise(secret))
    assert plainly(fake), "harmless even without the guard"
    with pytest.raises(JobFailed):
        await table.bench.file(fake)
    file = MediaFile(fake, fake.stat().st_size, "", "video/mp4")
    with pytest.raises(JobFailed) as caught:
        await table.bench.probe(file)
    assert "hitelist" in caught.value.detail
    out = table.bench.path("out.mp4")
    good = (await table.put(media.image(media_folder))).path
    for first, second in ((fake, good), (good, fake)):
        with pytest.raises(JobFailed) as caught:
            await table.bench.ffmpeg("-i", first, "-i", second, "-c", "copy", out)
        assert "hitelist" in caught.value.detail
        assert not out.exists()


@pytest.mark.parametrize(
    "argument",
    ["http://127.0.0.1:1/a.mp4", "concat:a|b", "tcp:127.0.0.1:1", "pipe:0", "data:,x"],
)
async def test_ffmpeg_gets_no_address(table: Table, argument: str) -> None:
    with pytest.raises(JobFailed) as caught:
        await table.bench.ffmpeg("-i", argument, table.bench.path("out.mp4"))
    assert caught.value.cause is Cause.INVALID_URL


async def test_name_of_a_file_is_never_read_as_a_protocol(
    table: Table, media_folder: Path
) -> None:
    folder = table.folder / "http:" / "concat:x"
    folder.mkdir(parents=True)
    path = folder / "-i pipe:0 %03d.mp4"
    shutil.copyfile(media.video(media_folder), path)
    file = await table.app.storage.inspect(path, table.folder)
    assert (await table.bench.probe(file)).video == "h264"
    out = table.bench.path("out.mp4")
    await table.bench.ffmpeg("-i", path, "-c", "copy", out)
    assert (await table.bench.file(out)).mime == "video/mp4"


# ffprobe


async def test_probe_of_a_video(table: Table, media_folder: Path) -> None:
    file = await table.put(media.video(media_folder, seconds=2))
    probe = await table.bench.probe(file)
    assert probe.duration_s is not None and abs(probe.duration_s - 2) < 0.1
    assert dataclasses.replace(probe, duration_s=None) == Probe(
        container="mov,mp4,m4a,3gp,3g2,mj2",
        video="h264",
        width=96,
        height=64,
        pixel_format="yuv420p",
        frames_per_s=10.0,
        audio="aac",
        index=0,
        audio_index=1,
        profile="Constrained Baseline",
        level=10,
        ticks_per_s=10.0,
        channels=1,
    )
    assert table.seen == []


async def test_probe_of_sound(table: Table, media_folder: Path) -> None:
    probe = await table.bench.probe(await table.put(media.audio(media_folder)))
    assert probe.duration_s is not None and abs(probe.duration_s - 1) < 0.2
    found = dataclasses.replace(probe, duration_s=None, start_s=0)
    assert found == Probe("mp3", audio="mp3", audio_index=0, channels=1)


async def test_probe_of_a_picture(table: Table, media_folder: Path) -> None:
    probe = await table.bench.probe(await table.put(media.image(media_folder)))
    assert probe.container in ("image2", "jpeg_pipe") and probe.video == "mjpeg"
    assert (probe.width, probe.height, probe.audio) == (96, 64, "")


async def test_cover_of_a_song_is_no_video(table: Table, media_folder: Path) -> None:
    path = table.folder / "song.mp3"
    sound, cover = media.audio(media_folder), media.image(media_folder, kind="png")
    both = ("-i", sound, "-i", cover, "-map", "0", "-map", "1", "-c", "copy")
    make(*both, "-disposition:v:0", "attached_pic", path)
    probe = await table.bench.probe(await table.bench.file(path))
    assert (probe.video, probe.width, probe.audio) == ("", 0, "mp3")


async def test_probe_of_a_file_with_long_texts(
    table: Table, media_folder: Path
) -> None:
    path = table.folder / "texts.mp4"
    texts: list[str] = []
    for name in ("title", "comment", "description", "synopsis"):
        texts += ["-metadata", f"{name}={name * 2000}"]
    make("-i", media.video(media_folder), "-c", "copy", *texts, path)
    probe = await table.bench.probe(await table.bench.file(path))
    assert (probe.video, probe.audio) == ("h264", "aac")


async def read(table: Table, files: list[MediaFile]) -> None:
    """Opened by one run of ffmpeg, which says which one it could not read."""
    inputs = [word for file in files for word in ("-i", file.path)]
    maps = [word for n in range(len(files)) for word in ("-map", str(n))]
    await table.bench.ffmpeg(*inputs, *maps, "-f", "null", "-")


async def test_what_is_posted_can_be_opened(table: Table, media_folder: Path) -> None:
    made = [
        *(media.image(media_folder, kind=k) for k in ("jpg", "png", "gif", "webp")),
        *(media.video(media_folder, kind=kind) for kind in ("mp4", "webm")),
        *(media.audio(media_folder, kind=kind) for kind in ("mp3", "m4a")),
        media.video(media_folder, sound=False),
        media.video(media_folder, picture=False),
        media.padded_image(media_folder, 50_000),
        media.padded_video(media_folder, 3 << 20),
    ]
    files = [await table.put(one) for one in made]
    await read(table, files)


OTHERS = {
    "mov mkv avi flv mpg wmv ts": ["-r", "25"],
    "3gp": ["-s", "176x144", "-an"],
    "ogg flac wav aiff aac": ["-vn"],
    "bmp tiff": ["-frames:v", "1", "-pix_fmt", "bgr24"],
}


async def test_other_kinds_that_are_posted_can_be_opened(
    table: Table, media_folder: Path
) -> None:
    outputs = {
        f"a.{kind}": options
        for kinds, options in OTHERS.items()
        for kind in kinds.split()
    }
    source = ["-i", str(media.video(media_folder))]
    made = media.made_of(source, table.folder, outputs)
    await read(table, [await table.bench.file(path) for path in made])


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\n"])
async def test_probe_of_what_is_no_media_fails(table: Table, content: bytes) -> None:
    path = table.bench.path("a.mp4")
    path.write_bytes(content)
    with pytest.raises(JobFailed) as caught:
        await table.bench.probe(MediaFile(path, len(content), "", "video/mp4"))
    assert caught.value.cause is Cause.NO_MEDIA
