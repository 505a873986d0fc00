"""Subtitles are kept beside the files, and burnt in for those who ask for it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import pytest
from bossbot_plugins import _bench
from bossbot_plugins import subtitles as plugin
from conftest import make_job
from discord_support import module
from PIL import Image, ImageStat

from bossbot import App, JobFailed

pytest_plugins = ("processor_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROCESSORS = ("subtitles",)
ASKED = {"subtitles": True}
WORDS = "1\n00:00:00,000 --> 00:00:01,000\nWWWWW\n"


Process = Callable[..., Any]


@pytest.fixture
def process(app: App, processed: Callable[..., Any]) -> Process:
    """Lets the plugin work on a video and its subtitles; returns the job, too."""

    async def process(video: Path, words: str, **options: Any) -> Any:
        job = make_job(claim_number=1, options=options, limit_bytes=10**7)
        folder = await app.storage.attempt_folder(job) / "files"
        paths = [
            folder / f"job_temp_0001{video.suffix}",
            folder / "job_temp_0001.en.srt",
        ]
        paths[0].write_bytes(video.read_bytes())
        paths[1].write_text(words)
        files = await processed(job, folder, paths)
        assert files[0].alt == "a cat"
        return job, files

    return process


def brightness(path: Path) -> float:
    """Of the lower third of the first picture, on the average."""
    with media.opened(path) as file:
        picture = next(file.decode(video=0))
    plane = picture.planes[0]
    light = Image.frombytes("L", (plane.line_size, plane.height), bytes(plane))
    lower = light.crop((0, plane.height * 2 // 3, plane.width, plane.height))
    return float(ImageStat.Stat(lower).mean[0])


@pytest.fixture(scope="module")
def black(shelf: Path) -> Path:
    return media.converted(
        media.video(shelf),
        *("black.mp4", "-vf", "scale=192:128,eq=brightness=-1:contrast=0"),
        *("-c:v", "libx264", "-preset", "ultrafast"),
    )


async def test_subtitles_are_kept_and_not_posted(
    process: Process, app: App, black: Path
) -> None:
    await plugin.check_job(asked := make_job())
    assert asked.options["keep_subtitles"]  # which the engines go by
    job, files = await process(black, WORDS)
    assert [file.beside for file in files] == [False, True]
    assert files[0].path.read_bytes() == black.read_bytes()
    kept = await app.storage.keep(job, files)
    assert [file.mime for file in kept] == ["video/mp4"]
    [beside] = await app.storage.beside(job)
    assert (beside.name, beside.path.read_text()) == ("0001.en.srt", WORDS)
    about = beside.path.parents[1] / "metadata.json"
    assert json.loads(about.read_text())["beside"] == ["0001.en.srt"]
    # They go with what they belong to.
    await app.storage.keep(job, [dataclasses.replace(beside, beside=False)])
    assert await app.storage.beside(job) == []


async def test_subtitles_are_burnt_in_when_asked_for(
    process: Process, black: Path
) -> None:
    _, files = await process(black, WORDS, **ASKED)
    assert [file.beside for file in files] == [False, True]
    assert brightness(files[0].path) > brightness(black) + 1
    assert files[0].mime == "video/mp4"


async def test_subtitles_are_burnt_into_what_every_screen_shows(
    process: Process, black: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = module("_plan")
    monkeypatch.setattr(loaded, "MAX_BLOCKS", 40 * 25 - 1)
    light = ["-x265-params", "colorprim=9:transfer=16:colormatrix=9"]
    hdr = media.converted(
        *(black, "hdr.mp4", "-vf", "scale=640:400", "-frames:v", "1"),
        *("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", *light),
    )
    _, files = await process(hdr, WORDS, **ASKED)
    shown = media.facts(files[0].path)
    assert (shown.pixel_format, shown.light[0]) == ("yuv420p", 1), "as of bt709"
    assert shown.height == 360, "for more, the encoder has no memory"


@pytest.mark.parametrize("how", ["no ffmpeg", "no subtitles", "audio"])
async def test_subtitles_that_cannot_be_burnt_in_are_posted(
    process: Process, black: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "no ffmpeg":
        monkeypatch.setattr(_bench, "find_programs", dict)
    options = {**ASKED, **({"quality": "audio"} if how == "audio" else {})}
    words = WORDS if how != "no subtitles" else "only text"
    _, files = await process(black, words, **options)
    assert [file.beside for file in files] == [False, False]
    assert files[0].path.read_bytes() == black.read_bytes()


HOSTILE = """\ufeffWEBVTT - x
STYLE
::cue {{ }}

NOTE 00:00:01.000 --> 00:00:02.000

id
00:01.5 --> 00:02.25 align:start position:0%
<c.yellow>Tom &amp; Jerry</c> {{\\an8\\p1}}m 0 0 l 9 9{{\\p0}}\\N<00:00:01.1>x
{long}

01:00:00.000 --> 01:00:01.000
{{\\fs9999}}

00:00:03,000 --> 00:00:04,000
{{open \\{{ braces"""


async def test_only_words_are_left_of_hostile_subtitles(tmp_path: Path) -> None:
    text = HOSTILE.format(long="y" * 5000).replace("\n", "\r\n")
    (tmp_path / "a.vtt").write_bytes(text.encode())
    plugin.write_plain(tmp_path / "a.vtt", tmp_path / "a.srt")
    assert (tmp_path / "a.srt").read_text() == (
        "1\n00:00:01,500 --> 00:00:02,250\nTom & Jerry m 0 0 l 9 9/Nx\n"
        f"{'y' * 200}\n\n2\n00:00:03,000 --> 00:00:04,000\n(open /( braces\n"
    )


@pytest.mark.parametrize(
    "text", ["", "\n" * 3 * 10**5, "00:00 --> " * 10**5, "<" * 10**6]
)
async def test_nonsense_is_no_subtitles(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.srt").write_text(text)
    with pytest.raises(JobFailed):
        plugin.write_plain(tmp_path / "a.srt", tmp_path / "b.srt")
