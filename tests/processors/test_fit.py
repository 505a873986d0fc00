"""Files are made to fit and to play, with real media of each kind."""

import json
import subprocess
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import media
import pytest
import pytest_asyncio
from bossbot_plugins._bench import JobBench
from bossbot_plugins._mp4 import read_mp4
from conftest import PARTS, link_plugins, make_job, spread

import bossbot
from bossbot import App, MediaFile, Progress, Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")
KIB = 1024


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """With the runner warm, for all tests here."""
    folder = tmp_path_factory.mktemp("fit")
    (folder / "own").mkdir()
    values = {"data_dir": folder / "data", "plugins_dir": folder / "own"}
    stems = ("fit", "split", "pictures")
    app = App(Settings(**spread(values)), link_plugins(folder / "ours", *PARTS, *stems))
    app.plugins.load()
    bossbot.prepare_data(app.settings.data_dir)
    yield app
    await app.stop()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


Fit = Callable[..., Any]


@pytest.fixture
def fit(app: App) -> Fit:
    """Lets the plugins work on copies of these files; keywords are the job's fields."""

    async def fit(*made: Path, limit: int = 0, **fields: Any) -> list[MediaFile]:
        job = make_job(claim_number=1, limit_bytes=limit, **fields)
        folder = await app.storage.attempt_folder(job) / "files"
        files = []
        for number, one in enumerate(made):
            path = folder / f"{number}_{one.name}"
            path.write_bytes(one.read_bytes())
            files.append(await app.storage.inspect(path, folder))
        seen.clear()
        bench = JobBench(app, job, folder, seen.append)
        done: list[MediaFile] = await app.plugins.fold(
            "process_files", "files", job=job, files=files, bench=bench
        )
        assert not any(one.failures for one in app.plugins.all.values())
        return done

    return fit


seen: list[Progress] = []


def probed(path: Path) -> dict[str, Any]:
    words = ["-of", "json", "-show_format", "-show_streams", str(path)]
    done = subprocess.run(
        ["ffprobe", "-v", "error", *words], capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def make(target: Path, *argv: str) -> Path:
    """Made by ffmpeg from its own patterns."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *argv, str(target)]
    subprocess.run(command, check=True)
    return target


def pattern(size: str = "160x96", rate: str = "15", length_s: float = 1) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={length_s}"]


def tone(length_s: float = 1) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=440:d={length_s}"]


H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
AAC = ["-c:a", "aac", "-b:a", "64k"]
BOTH = [*pattern(), *tone()]
HDR = "color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
KINDS: dict[str, list[str]] = {
    "mov.mov": [*BOTH, *H264, *AAC],
    "ts.ts": [*BOTH, *H264, *AAC],
    "mkv.mkv": [*BOTH, *H264, *AAC],
    "flv.flv": [*BOTH, *H264, *AAC],
    "no-faststart.mp4": [*BOTH, *H264, *AAC],
    "fragments.mp4": [*BOTH, *H264, *AAC, "-movflags", "frag_keyframe+empty_moov"],
    "ac3.mp4": [*BOTH, *H264, "-c:a", "ac3"],
    "mp3.mp4": [*BOTH, *H264, "-c:a", "libmp3lame"],
    "surround.mkv": [*BOTH, *H264, "-c:a", "ac3", "-ac", "6"],
    "hevc.mp4": [*BOTH, "-c:v", "libx265", "-preset", "ultrafast", *AAC],
    "vp9.webm": [
        *BOTH,
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
    ],
    "av1.mkv": [*BOTH, "-c:v", "libsvtav1", "-preset", "12", "-c:a", "libopus"],
    "ten-bits.mp4": [*pattern(), *H264[:4], "-pix_fmt", "yuv420p10le"],
    "444.mp4": [*pattern(), *H264[:4], "-pix_fmt", "yuv444p"],
    "rgb.mkv": [*pattern(), "-c:v", "libx264rgb", "-preset", "ultrafast"],
    "hdr.mp4": [
        *pattern(),
        *("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
        *("-x265-params", "colorprim=9:transfer=16:colormatrix=9"),
    ],
    "odd.mkv": [*pattern("161x97"), "-c:v", "ffv1"],
    "portrait.webm": [*pattern("96x160"), "-c:v", "libvpx", "-deadline", "realtime"],
    "wide-pixels.avi": [*pattern(), "-vf", "setsar=4/3", "-c:v", "mpeg4"],
    "interlaced.mpg": [
        *pattern(rate="25"),
        *("-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-top", "1"),
    ],
    "uneven.mkv": [
        *pattern(rate="30", length_s=2),
        *("-vf", "select='not(mod(n,7))+lt(n,20)'", "-vsync", "vfr", "-c:v", "vp8"),
    ],
    "silent.avi": [*pattern(), "-c:v", "mjpeg"],
    "still.mkv": [*pattern("64x48", "0.2", 7200), "-c:v", "mpeg4"],
}


def shape_of(path: Path) -> Fraction:
    """Width to height, as it is shown."""
    [video] = [s for s in probed(path)["streams"] if s["codec_type"] == "video"]
    ratio = video.get("sample_aspect_ratio", "1:1").replace("0:1", "1:1")
    shape = Fraction(video["width"], video["height"]) * Fraction(
        ratio.replace(":", "/")
    )
    turned = any(d.get("rotation", 0) % 180 for d in video.get("side_data_list", ()))
    return 1 / shape if turned else shape


def check(path: Path, source: Path, limit: int = 10**9) -> dict[str, Any]:
    """What is posted plays anywhere and is what the source was; returns the picture."""
    found, was = probed(path), probed(source)
    assert path.suffix == ".mp4" and path.stat().st_size <= limit
    boxes = read_mp4(path)
    assert boxes and boxes.plays
    [video] = [s for s in found["streams"] if s["codec_type"] == "video"]
    sound = [s["codec_name"] for s in found["streams"] if s["codec_type"] == "audio"]
    had = [s for s in was["streams"] if s["codec_type"] == "audio"]
    assert video["codec_name"] == "h264" and video["level"] <= 52
    assert video["pix_fmt"] in ("yuv420p", "yuvj420p")
    assert len(found["streams"]) == 1 + len(sound)
    assert sound == ["aac"] * bool(had)
    lengths = [float(one["format"]["duration"]) for one in (found, was)]
    assert abs(lengths[0] - lengths[1]) < 0.5, lengths
    assert abs(shape_of(path) / shape_of(source) - 1) < 0.03
    return dict(video)


@pytest.mark.parametrize("name", KINDS)
async def test_video_of_any_kind_plays(fit: Fit, shelf: Path, name: str) -> None:
    source = shelf / name
    if not source.exists():
        make(source, *KINDS[name])
    [file] = await fit(source)
    assert not file.failure, (file.failure, file.failure.detail)
    video = check(file.path, source)
    if name == "hdr.mp4":
        assert video["color_transfer"] == video["color_primaries"] == "bt709"
    if name == "interlaced.mpg":
        assert video.get("field_order", "progressive") == "progressive"


# As it is


async def test_what_fits_and_plays_is_not_touched(fit: Fit, shelf: Path) -> None:
    turned = ["-c", "copy", "-metadata:s:v", "rotate=90", "-movflags", "+faststart"]
    plain = make(shelf / "plain.mp4", *BOTH, *H264, *AAC, "-movflags", "+faststart")
    sources = [
        plain,
        make(shelf / "turned.mp4", "-i", str(plain), *turned),
        make(shelf / "mute.mp4", *pattern(), *H264, "-movflags", "+faststart"),
        *(media.audio(shelf, kind=kind) for kind in ("mp3", "m4a")),
        *(
            make(shelf / f"a.{kind}", *tone())
            for kind in ("ogg", "opus", "wav", "flac")
        ),
        *(media.image(shelf, kind=kind) for kind in ("jpg", "png", "gif", "webp")),
    ]
    files = await fit(*sources)
    assert [file.failure for file in files] == [None] * len(sources)
    for file, source in zip(files, sources, strict=True):
        assert file.path.read_bytes() == source.read_bytes(), source
        assert file.note == ""
    assert not seen, "nothing was run"


async def test_picture_stays_when_only_the_sound_is_in_the_way(
    fit: Fit, shelf: Path
) -> None:
    source = make(shelf / "loud.mov", *pattern(), *tone(), *H264, "-c:a", "pcm_s16le")
    [file] = await fit(source)
    check(file.path, source)
    pictures = []
    for path in (file.path, source):
        raw = ["-map", "0:v", "-c", "copy", "-f", "h264", "-bsf:v", "h264_mp4toannexb"]
        pictures.append(make(shelf / "raw.h264", "-i", str(path), *raw).read_bytes())
    assert pictures[0] == pictures[1]


# Too large

BUSY = [
    *("-f", "lavfi", "-i", "testsrc2=s=320x240:r=15:d=6,noise=alls=20:allf=t"),
    *tone(6),
]


@pytest.fixture(scope="module")
def large(shelf: Path) -> Path:
    """A video of some 2 MB."""
    how = [*H264, "-crf", "20", *AAC, "-movflags", "+faststart"]
    return make(shelf / "large.mp4", *BUSY, *how)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
async def test_large_video_fills_the_limit(fit: Fit, large: Path, share: float) -> None:
    limit = int(large.stat().st_size * share)
    [file] = await fit(large, limit=limit)
    assert not file.failure, file.failure
    check(file.path, large, limit)
    assert file.size >= limit * 0.9
    assert "to fit" in file.note
    assert {one.name for one in seen} == {"Making it fit"}
    shares = [one.share for one in seen if one.share is not None]
    assert shares and max(shares) > 0.5
