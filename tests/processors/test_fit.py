"""Files are made to fit and to play, with real media of each kind."""

import dataclasses
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import media
import pytest
from bossbot_plugins import _bench, _frames, pictures, split
from bossbot_plugins import fit as fit_plugin
from bossbot_plugins._media import adts_frame
from bossbot_plugins._mp4 import read_mp4
from bossbot_plugins._whole import is_whole
from conftest import make_job
from media import Facts, facts
from PIL import Image

from bossbot import App, Cause, Encoded, JobFailed, MediaFile, Probe, Progress

pytest_plugins = ("processor_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROCESSORS = ("fit", "split", "pictures")
KIB = 1024


Fit = Callable[..., Any]


@pytest.fixture
def fit(app: App, processed: Callable[..., Any]) -> Fit:
    """Lets the plugins work on copies of these files; keywords are the job's fields."""

    async def fit(*made: Path, limit: int = 0, **fields: Any) -> list[MediaFile]:
        job = make_job(claim_number=1, limit_bytes=limit, **fields)
        folder = await app.storage.attempt_folder(job) / "files"
        paths = []
        for number, one in enumerate(made):
            path = folder / f"{number}_{one.name}"
            path.write_bytes(one.read_bytes())
            paths.append(path)
        seen.clear()
        files: list[MediaFile] = await processed(
            job, folder, paths, seen.append, "mine"
        )
        assert {file.alt for file in files} == {"a cat"}
        notes = [file.note.partition(", ") for file in files]
        assert {first for first, *_ in notes} == {"mine"}
        return [
            dataclasses.replace(file, note=rest)
            for file, (*_, rest) in zip(files, notes, strict=True)
        ]

    return fit


seen: list[Progress] = []


def make(target: Path, *argv: str) -> Path:
    """Made by ffmpeg from its own patterns."""
    return media.made_of((), target.parent, {target.name: argv})[0]


def pattern(size: str = "160x96", rate: str = "15", length_s: float = 1) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={length_s}"]


def tone(length_s: float = 1) -> list[str]:
    return ["-f", "lavfi", "-i", f"sine=440:d={length_s}"]


H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
AAC = ["-c:a", "aac", "-b:a", "64k"]
FRONT = ["-movflags", "+faststart"]
BOTH = [*pattern(), *tone()]
STILL = pattern("64x48", "0.05", 1800)
HEVC = ["-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"]
FAST = ["-deadline", "realtime", "-cpu-used", "8"]
# What goes through together, by what is in the way; of each, one run makes all.
KINDS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "container": (
        BOTH,
        {
            "ts.ts": [*H264, *AAC],
            "fragments.mp4": [*H264, *AAC, "-movflags", "frag_keyframe+empty_moov"],
            # With sound of another kind, too, that becomes AAC.
            "mp3.flv": [*H264, "-c:a", "libmp3lame"],
            "surround.mov": [*H264, "-c:a", "ac3", "-ac", "6"],
        },
    ),
    "picture": (
        BOTH,
        {
            "wide-pixels.webm": ["-vf", "setsar=4/3", "-c:v", "libvpx-vp9", *FAST],
            "rgb.mkv": ["-c:v", "libx264rgb", "-preset", "ultrafast"],
            # Only how bright it is, not in which colours.
            "hdr.mp4": [*HEVC, "-x265-params", "transfer=16"],
            "lossless.mp4": [*H264, "-qp", "0", *FRONT],
            "b-frames.avi": [*H264[:3], "superfast", "-pix_fmt", "yuv420p"],
            "interlaced.mpg": [
                *("-r", "25", "-c:v", "mpeg2video"),
                *("-flags", "+ilme+ildct", "-top", "1"),
            ],
        },
    ),
    "times": (
        [*pattern(rate="30", length_s=2), *pattern("64x48", "1/3", 9), *STILL],
        {
            "uneven.mkv": [
                *("-vf", "select='not(mod(n,7))+lt(n,20)'", "-vsync", "vfr"),
                *("-map", "0", "-c:v", "vp8"),
            ],
            "slides.avi": ["-map", "1", "-c:v", "mjpeg"],
            "still.mkv": ["-map", "2", "-c:v", "mpeg4"],
        },
    ),
}


# Files with one fault or none. One run of ffmpeg makes them all.
TAG = ["-metadata", "title=" + "<@1>" * 25_000]
SIMPLE = {
    "plain.mp4": [*H264, *AAC, *FRONT],
    "mute.mp4": ["-an", *H264, *FRONT],
    "late.mkv": [*H264, *AAC, "-output_ts_offset", "10"],
    "back.mp4": [*H264, *AAC],
    "mp3.mp4": [*H264, "-c:a", "libmp3lame", *FRONT],
    "hard.mkv": ["-an", "-c:v", "mpeg4"],
    "tags.mkv": [*H264, *AAC, *TAG],
    "tags.mp3": ["-vn", "-b:a", "64k", *TAG],
    **{f"a.{kind}": ["-vn"] for kind in ("ogg", "opus", "wav", "flac", "mp3", "m4a")},
}


@pytest.fixture(scope="module")
def simple(shelf: Path) -> dict[str, Path]:
    """The files of SIMPLE, by name."""
    made = media.made_of(BOTH, shelf / "simple", SIMPLE)
    return dict(zip(SIMPLE, made, strict=True))


def is_in_order(path: Path) -> bool:
    """Whether each picture comes after the one before it."""
    with media.opened(path) as file:
        times = [picture.pts for picture in file.decode(video=0)]
    return times == sorted(set(times))


def check(path: Path, source: Path, limit: int = 10**9) -> Facts:
    """What is posted plays anywhere and is what the source was; returns its facts."""
    found, was = facts(path), facts(source)
    assert path.suffix == ".mp4" and path.stat().st_size <= limit
    boxes = read_mp4(path)
    assert boxes and boxes.plays
    sound = {"audio": ["aac"]} if "audio" in was.codecs else {}
    assert found.codecs == {"video": ["h264"], **sound}, source
    assert found.extra[3] <= 52  # its level
    assert found.pixel_format in ("yuv420p", "yuvj420p")
    assert abs(found.length_s - was.length_s) < 0.5, (source, found, was)
    assert abs(found.shape / was.shape - 1) < 0.03, (source, found, was)
    return found


@pytest.mark.parametrize("way", KINDS)
async def test_video_of_any_kind_plays(fit: Fit, shelf: Path, way: str) -> None:
    inputs, kinds = KINDS[way]
    sources = media.made_of(inputs, shelf / way, kinds)
    for file, source in zip(await fit(*sources), sources, strict=True):
        assert not file.failure, (source, file.failure, file.failure.detail)
        found = check(file.path, source)
        if source.name == "hdr.mp4":
            assert found.light == (1, 1), "of bt709"
        assert source.name != "b-frames.avi" or is_in_order(file.path)
        assert not found.interlaced
        if way == "container" and source.suffix != ".ts":  # whose pictures are marked
            assert pictures_in(file.path) == pictures_in(source), "they stay"


def pictures_in(path: Path) -> list[bytes]:
    """As they are stored."""
    with media.opened(path) as file:
        return [bytes(packet) for packet in file.demux(video=0)]


async def test_mp4_that_plays_only_in_some_places_is_known(
    simple: dict[str, Path],
) -> None:
    for name, plays in {"plain": True, "back": False, "mp3": False}.items():
        boxes = read_mp4(simple[f"{name}.mp4"])
        assert boxes and boxes.plays is plays, name


async def test_video_whose_clock_starts_late_is_not_cut_short(
    fit: Fit, simple: dict[str, Path]
) -> None:
    [file] = await fit(simple["late.mkv"])
    assert not file.failure, file.failure.detail
    assert abs(facts(file.path).length_s - 1) < 0.5


# As it is


async def test_what_fits_and_plays_is_not_touched(
    fit: Fit, shelf: Path, simple: dict[str, Path]
) -> None:
    names = ["plain.mp4", "mute.mp4", *(name for name in SIMPLE if name[:2] == "a.")]
    plain = simple["plain.mp4"]
    (shelf / "plain.m4v").write_bytes(plain.read_bytes())
    turned = ["-c", "copy", "-metadata:s:v", "rotate=90", *FRONT]
    sources = [
        *(simple[name] for name in names),
        shelf / "plain.m4v",
        media.converted(plain, "turned.mp4", *turned),
        *(media.image(shelf, kind=kind) for kind in ("jpg", "png", "webp")),
        moving(shelf)[1],
    ]
    files = await fit(*sources)
    assert [file.failure for file in files] == [None] * len(sources)
    for file, source in zip(files, sources, strict=True):
        assert file.path.read_bytes() == source.read_bytes(), source
        assert file.note == ""
        assert file.path.suffix != ".m4v", "players know mp4"
    assert not seen, "nothing was run"


def moving(shelf: Path) -> list[Path]:
    """The same moving picture as a WebP and a GIF."""
    outputs = {"a.webp": ["-c:v", "libwebp_anim"], "a.gif": []}
    return media.made_of(pattern("161x97", "10", 2), shelf, outputs)


# Too large

BUSY = [
    *("-f", "lavfi", "-i", "testsrc2=s=192x144:r=15:d=3,noise=alls=20:allf=t"),
    *tone(3),
]


@pytest.fixture(scope="module")
def large(shelf: Path) -> Path:
    """A video of some 800 kB."""
    how = [*H264, "-crf", "20", *AAC, *FRONT]
    return make(shelf / "large.mp4", *BUSY, *how)


@pytest.mark.parametrize("share", [0.9, 0.2])
async def test_large_video_fills_the_limit(
    fit: Fit, large: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = int(large.stat().st_size * share)
    measured, probe = list[Path](), _bench.JobBench.probe

    async def noted(bench: _bench.JobBench, file: MediaFile) -> Probe:
        measured.append(file.path)
        return await probe(bench, file)

    monkeypatch.setattr(_bench.JobBench, "probe", noted)
    [file] = await fit(large, limit=limit)
    assert not file.failure, file.failure
    assert len(measured) == len({*measured}), "split leaves it, as it was measured"
    check(file.path, large, limit)
    assert file.size >= limit * 0.9
    assert "to fit" in file.note
    others = [one for one in file.path.parent.iterdir() if one.suffix == ".mp4"]
    assert others == [file.path], "no try takes place on the disk"
    assert {one.name for one in seen} == {"Making it fit"}
    shares = [one.share for one in seen if one.share is not None]
    assert shares and max(shares) > 0.5


async def test_half_a_second_of_noise_fills_the_limit(fit: Fit, shelf: Path) -> None:
    noise = "testsrc2=s=192x144:r=30:d=0.5,noise=alls=60:allf=t"
    source = make(shelf / "noise.mp4", "-f", "lavfi", "-i", noise, *H264, "-crf", "12")
    limit = source.stat().st_size // 3
    [file] = await fit(source, limit=limit)
    check(file.path, source, limit)
    assert file.size >= 0.9 * limit


async def test_sound_alone_gives_way_if_the_picture_leaves_room(
    fit: Fit, shelf: Path
) -> None:
    both = [*pattern("64x48", "5", 3), "-f", "lavfi", "-i", "anoisesrc=d=3:a=0.5"]
    how = [*H264, "-c:a", "aac", "-b:a", "320k", *FRONT]
    source = make(shelf / "loud.mp4", *both, *how)
    limit = source.stat().st_size * 2 // 3
    [file] = await fit(source, limit=limit)
    check(file.path, source, limit)
    assert file.note.startswith("sound at ")


async def test_fewer_pixels_are_better_than_too_few_bits(fit: Fit, shelf: Path) -> None:
    busy = "testsrc2=s=480x800:r=5:d=2,noise=alls=30:allf=t"
    source = make(shelf / "tall.mp4", "-f", "lavfi", "-i", busy, *H264, "-crf", "30")
    limit = 15 * KIB
    [file] = await fit(source, limit=limit)
    video = check(file.path, source, limit)
    assert (video.width, video.height) == (360, 600)
    assert file.note == "480p to 360p to fit 15 KiB"


async def test_turned_video_stands_upright(fit: Fit, shelf: Path) -> None:
    flat = make(shelf / "flat.mp4", *pattern("160x96", length_s=2), *H264)
    how = ["-c", "copy", "-metadata:s:v", "rotate=90"]
    source = media.converted(flat, "upright.mov", *how)
    [copied] = await fit(source)
    check(copied.path, source)
    limit = source.stat().st_size // 2
    [encoded] = await fit(source, limit=limit)
    video = check(encoded.path, source, limit)
    assert (video.width, video.height) == (96, 160)


@pytest.mark.parametrize("interval", ["10", "1000"])  # between key frames
async def test_long_video_is_split_into_parts_that_play(
    fit: Fit, shelf: Path, interval: str
) -> None:
    busy = ["-f", "lavfi", "-i", "smptebars=s=320x240:r=5:d=12,hue=h=9*t"]
    outputs = {
        f"long-{number}.mp4": [*H264, "-crf", "51", "-g", number]
        for number in ("10", "1000")
    }
    media.made_of(busy, shelf, outputs)
    files = await fit(shelf / f"long-{interval}.mp4", limit=(small := 12_000))
    assert [file.failure for file in files] == [None] * len(files)
    assert len(files) == 2
    for number, file in enumerate(files, 1):
        assert file.size <= small and file.note.startswith(
            f"part {number} of {len(files)}"
        )
        boxes = read_mp4(file.path)
        assert boxes and boxes.plays
    assert abs(sum(facts(file.path).length_s for file in files) - 12) < 0.5


async def test_picture_of_a_still_is_not_encoded_again(fit: Fit, shelf: Path) -> None:
    noise = ["-f", "lavfi", "-i", "anoisesrc=d=15:a=0.5"]
    how = [*H264, "-tune", "stillimage", "-c:a", "aac", "-b:a", "96k"]
    color = ["-f", "lavfi", "-i", "color=s=320x240:r=5:d=15"]
    source = make(shelf / "song.mp4", *color, *noise, *how)
    limit = 60 * KIB  # a third of it, by far less than 64 kbit/s
    [file] = await fit(source, limit=limit)
    check(file.path, source, limit)
    assert file.size >= 0.9 * limit and file.note.startswith("sound at ")


async def test_what_is_far_too_long_is_not_even_tried(fit: Fit, large: Path) -> None:
    [file] = await fit(large, limit=500)
    assert file.failure and file.failure.cause is Cause.TOO_LARGE
    assert file.failure.detail.endswith("3 s long")


async def test_sound_is_split_without_a_crumb(fit: Fit, shelf: Path) -> None:
    noise = ["-f", "lavfi", "-i", "anoisesrc=d=6:a=0.4"]
    source = make(shelf / "crumb.opus", *noise, "-b:a", "40k")
    files = await fit(source, limit=18_000)
    lengths = [facts(file.path).length_s for file in files]
    assert len(lengths) == 2 and min(lengths) > 2.4 and abs(sum(lengths) - 6) < 0.5


# Sound


async def test_sound_of_other_kinds_plays(fit: Fit, shelf: Path) -> None:
    kinds = {
        "a.mka": (["-c:a", "libvorbis"], "vorbis"),
        "a.aiff": ([], "aac"),
        "a.w64": (["-c:a", "pcm_s16le"], "pcm_s16le"),
    }
    outputs = {name: how for name, (how, _) in kinds.items()}
    files = await fit(*media.made_of(tone(), shelf / "sounds", outputs))
    for file, (name, (_, codec)) in zip(files, kinds.items(), strict=True):
        ending = {"aac": ".m4a", "pcm_s16le": ".wav"}.get(codec, ".ogg")
        assert file.path.suffix == ending, name
        assert facts(file.path).codecs == {"audio": [codec]}, name


@pytest.mark.parametrize(("kbps", "codec"), [(100, "aac"), (40, "opus"), (28, "opus")])
async def test_large_sound_gets_the_bits_that_fit(
    fit: Fit, shelf: Path, kbps: int, codec: str
) -> None:
    noise = ["-f", "lavfi", "-i", "anoisesrc=d=5:a=0.3"]
    source = make(shelf / "noise.wav", *noise)
    limit = kbps * 1000 // 8 * 5
    [file] = await fit(source, limit=limit)
    assert 0.9 * limit <= file.size <= limit and not file.failure
    found = facts(file.path)
    assert found.codecs == {"audio": [codec]}
    assert abs(found.length_s - 5) < 0.5
    assert "kbit/s to fit" in file.note


# Pictures


async def test_large_picture_becomes_smaller(fit: Fit, shelf: Path) -> None:
    data = random.Random(1).randbytes(400 * 300)
    noise = Image.frombytes("L", (400, 300), data).convert("RGB")
    small = noise.crop((0, 0, 160, 160))  # of which the first try fits
    clear = small.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    pictures = {"noise.png": noise, "still.gif": small, "clear.ico": clear}
    for name, picture in pictures.items():
        picture.save(shelf / name)
    files = await fit(*(shelf / name for name in pictures), limit=30_000)
    assert [file.failure for file in files] == [None] * 3
    assert [file.path.suffix for file in files] == [".jpg", ".webp", ".webp"]
    for file in files:
        assert file.size <= 30_000 and "to fit 29.3 KiB" in file.note
        with Image.open(file.path) as picture:
            assert 2 <= picture.width <= 400
    with Image.open(files[2].path) as picture:
        assert "A" in picture.mode


async def test_photo_stays_turned_as_the_camera_was(fit: Fit, shelf: Path) -> None:
    plain = media.image(shelf).read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    photo = shelf / "photo.jpg"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    photo.write_bytes(plain[:2] + segment + plain[2:] + bytes(5000))
    [file] = await fit(photo, limit=photo.stat().st_size - 1)
    with Image.open(file.path) as picture:
        assert picture.size == (64, 96)


async def test_scan_of_a_hundred_megapixels_becomes_smaller(
    fit: Fit, shelf: Path
) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        sum_of = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", sum_of)

    width, height = 12_000, 9_000  # in black and white, to be made quickly
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes((1 + width // 8) * height)))
    data = b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")
    scan = shelf / "scan.png"
    scan.write_bytes(data + bytes(600_000))  # which no decoder minds
    [file] = await fit(scan, limit=600_000)
    assert not file.failure, file.failure
    with Image.open(file.path) as picture:
        assert 35e6 < picture.width * picture.height < 41e6


async def test_gif_over_the_limit_becomes_a_video(fit: Fit, shelf: Path) -> None:
    source = moving(shelf)[1]
    [file] = await fit(source, limit=source.stat().st_size - 1)
    check(file.path, source)


async def test_webp_that_moves_becomes_a_video(fit: Fit, shelf: Path) -> None:
    source, same = moving(shelf)
    [file] = await fit(source, limit=source.stat().st_size - 1)
    assert not file.failure, file.failure.detail
    check(file.path, same)
    assert "to fit" in file.note
    [untouched] = await fit(source)
    assert untouched.path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("limit", "pixels"), [("MAX_PIXELS", 4 * 160 * 96), ("MAX_SOURCE_PIXELS", 160 * 96)]
)
async def test_webp_of_too_many_or_too_large_pictures_is_told_to_be_too_large(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, limit: str, pixels: int
) -> None:
    source = make(shelf / "b.webp", *pattern(rate="4"), "-c:v", "libwebp_anim")
    monkeypatch.setattr(_frames, limit, pixels - 1)
    with pytest.raises(JobFailed) as caught:
        _frames.to_apng(source, shelf / "b.png")
    assert caught.value.cause is Cause.TOO_LARGE
    monkeypatch.setattr(_frames, limit, pixels)
    _frames.to_apng(source, shelf / "b.png")
    with Image.open(shelf / "b.png") as picture:
        assert (picture.format, picture.width) == ("PNG", 160)
        picture.seek(1)  # there are more of them


async def test_pictures_of_a_webp_are_smaller_on_black_and_not_shown_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a.webp", tmp_path / "a.png"
    clear, red = Image.new("RGBA", (80, 40)), Image.new("RGBA", (80, 40), "red")
    clear.save(source, save_all=True, append_images=[red], duration=[100_000, 100])
    monkeypatch.setattr(_frames, "MAX_SIDE", 20)
    _frames.to_apng(source, target)
    with Image.open(target) as made:
        assert made.size == (20, 10) and made.info["duration"] == 65_535
        assert made.convert("RGB").getpixel((5, 5)) == (0, 0, 0)


async def test_avif_that_moves_becomes_a_video(fit: Fit, shelf: Path) -> None:
    how = ["-c:v", "libsvtav1", "-preset", "12"]
    [file] = await fit(make(shelf / "moves.avif", *pattern(length_s=2), *how))
    boxes = read_mp4(file.path)
    assert boxes and boxes.plays and file.mime == "video/mp4"
    assert abs(facts(file.path).length_s - 2) < 0.5


async def test_tags_are_left_out_where_they_are_in_the_way(
    fit: Fit, simple: dict[str, Path]
) -> None:
    video, sound = simple["tags.mkv"], simple["tags.mp3"]
    files = await fit(video, sound, limit=60_000)
    check(files[0].path, video, 60_000)
    assert not files[1].failure and files[1].size < 60_000
    assert facts(files[1].path).codecs == {"audio": ["mp3"]}


# What cannot be posted


def cut(source: Path, share: float = 0.6) -> Path:
    path = source.with_name(f"cut-{source.name}")
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    return path


CUT = {
    **{f"a.{kind}": [*H264, *AAC] for kind in ("mkv", "flv", "avi", "ts")},
    "front.mp4": [*H264, *AAC, "-movflags", "+faststart"],
    "b.webm": ["-c:v", "libvpx", *FAST, "-c:a", "libopus"],
    "a.wmv": ["-c:v", "wmv2", "-c:a", "wmav2"],
    "a.mpg": ["-r", "25", "-c:v", "mpeg2video", "-c:a", "mp2"],
    **{
        f"a.{kind}": ["-vn"]
        for kind in ("wav", "ogg", "flac", "mp3", "aiff", "aac", "ac3", "eac3")
    },
    **{
        f"a.{kind}": ["-frames:v", "1"]
        for kind in ("jpg", "png", "webp", "bmp", "tiff")
    },
    "a.gif": ["-frames:v", "2"],
    "a.avif": ["-frames:v", "1", "-c:v", "libsvtav1", "-preset", "12"],
}


async def test_file_that_is_cut_short_is_a_failure(fit: Fit, shelf: Path) -> None:
    whole = media.made_of([*pattern(length_s=2), *tone(2)], shelf / "cut", CUT)
    files = await fit(*(cut(one, 0.61) for one in whole), media.image(shelf))
    assert not files.pop().failure, "the others are posted"
    for file, name in zip(files, CUT, strict=True):
        assert file.failure and file.failure.cause is Cause.NO_MEDIA, name
        said = str(file.failure)
        assert "cut short" in said or "damaged" in said, name


@pytest.mark.parametrize("left", [1, 6, 20])
async def test_sound_that_ends_in_a_frame_s_head_is_cut_short(
    shelf: Path, left: int
) -> None:
    sound, place = make(shelf / "head.aac", *tone()).read_bytes(), 0
    assert is_whole(shelf / "head.aac")
    for _ in range(8):
        place += adts_frame(sound[place : place + 7])
    (shelf / "half.aac").write_bytes(sound[: place + left])
    assert not is_whole(shelf / "half.aac")


async def test_mp4_that_ends_before_its_index_is_cut_short(
    app: App, simple: dict[str, Path]
) -> None:
    job = make_job(claim_number=1)
    folder = await app.storage.attempt_folder(job) / "files"
    half = cut(simple["back.mp4"]).rename(folder / "half.mp4")
    with pytest.raises(JobFailed) as caught:
        await app.storage.inspect(half, folder)
    assert caught.value.cause is Cause.NO_MEDIA and "cut short" in str(caught.value)


async def test_video_with_a_hole_in_it_is_a_failure(fit: Fit, shelf: Path) -> None:
    how = ["-preset", "ultrafast", "-pix_fmt", "yuv420p", *FRONT]
    codecs = {f"{one}.mp4": ["-c:v", one, *how] for one in ("libx264", "libx265")}
    both = [*pattern(length_s=3), *tone(3)]
    holes = []
    for whole in media.made_of(both, shelf, codecs):
        data = bytearray(whole.read_bytes())
        first, last = len(data) * 4 // 10, len(data) * 7 // 10
        data[first:last] = bytes(last - first)
        holes.append(whole.with_name(f"hole-{whole.name}"))
        holes[-1].write_bytes(data)
    for file in await fit(*holes):
        assert file.failure and "damaged" in str(file.failure), file.name


async def test_what_lies_about_itself_is_a_failure(
    fit: Fit, shelf: Path, simple: dict[str, Path]
) -> None:
    data = simple["plain.mp4"].read_bytes()
    lie = shelf / "lie.mp4"  # the boxes are there, and nothing in them is true
    place = data.index(b"mdat") + 4
    lie.write_bytes(data[:place] + (b"<html>" * len(data))[: len(data) - place])
    named = data.replace(b"avc1", b"xvc1")
    (shelf / "codec.mp4").write_bytes(named)
    place = data.index(b"stco") + 12  # of a piece that would lie behind the end
    (shelf / "place.mp4").write_bytes(data[:place] + b"\x7f" + data[place + 1 :])
    failed, *files = await fit(shelf / "place.mp4", lie, shelf / "codec.mp4")
    assert failed.failure and "cut short" in str(failed.failure)
    for file in files:
        assert file.failure and file.failure.cause is Cause.NO_MEDIA
        assert "damaged" in str(file.failure)


async def test_index_of_more_tracks_than_there_may_be_is_not_read(
    tmp_path: Path,
) -> None:
    def box(name: bytes, body: bytes) -> bytes:
        return (8 + len(body)).to_bytes(4, "big") + name + body

    path = tmp_path / "a.mp4"
    for first in (box(b"ftyp", b"isom"), box(b"uuid", b"")):
        path.write_bytes(first + box(b"moov", box(b"trak", b"") * 1000))
        assert read_mp4(path) is None
        path.write_bytes(first + box(b"moov", box(b"trak", b"") * 10))
        assert len(getattr(read_mp4(path), "tracks", ())) == 10


@pytest.mark.parametrize("kind", ["video", "image"])
async def test_why_a_file_failed_is_not_lost(shelf: Path, kind: str) -> None:
    late = JobFailed(Cause.TIMED_OUT, "", "It took too long.")

    async def probe(file: MediaFile) -> None:
        raise late

    bench = Mock(spec_set=["limit_bytes", "probe", "path"])
    bench.limit_bytes, bench.probe, bench.path = 1, probe, shelf.joinpath
    path = media.image(shelf) if kind == "image" else media.video(shelf)
    file = MediaFile(path, path.stat().st_size, "", f"{kind}/{path.suffix[1:]}")
    work = {
        "image": pictures.fitted,
        "video": partial(fit_plugin.fitted, config=fit_plugin.Config()),
    }
    assert (await work[kind](file, bench)).failure is late
    # And what has failed already is left alone.
    failed = dataclasses.replace(file, path=shelf / "none", failure=late)
    assert await work[kind](failed, bench) is failed
    assert await split.parts_of(failed, bench) == [failed]


async def test_video_that_cannot_be_converted_is_posted_as_it_came_if_it_fits(
    app: App, fit: Fit, simple: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = app.plugins.all["fit"]
    config = type(plugin.config).model_construct(preset="none")  # x264 has none such
    monkeypatch.setattr(plugin, "config", config)
    source = simple["hard.mkv"]
    [file] = await fit(source)
    assert not file.failure and file.path.read_bytes() == source.read_bytes()
    assert "unchanged" in file.note
    [file] = await fit(source, limit=source.stat().st_size - 1)
    assert file.failure and file.failure.cause is Cause.TOO_LARGE


async def test_full_disk_leaves_what_fits_as_it_came(
    fit: Fit, simple: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _bench.JobBench.ffmpeg

    async def ffmpeg(bench: Any, *argv: str | Path, **how: Any) -> Encoded:
        if how.get("encodes"):  # what writes a large file
            raise JobFailed(Cause.DISK_FULL, "No space left on device")
        return await real(bench, *argv, **how)

    monkeypatch.setattr(_bench.JobBench, "ffmpeg", ffmpeg)
    source = simple["hard.mkv"]
    [file] = await fit(source)
    assert not file.failure and "unchanged" in file.note
    [file] = await fit(source, limit=source.stat().st_size - 1)
    assert file.failure and file.failure.cause is Cause.DISK_FULL


# Encoders


async def test_hardware_that_fails_gives_way_to_software(
    app: App, fit: Fit, simple: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = app.plugins.all["fit"]
    config = type(plugin.config)(encoder="h264_nvenc")  # no machine of ours has one
    monkeypatch.setattr(plugin, "config", config)
    source = simple["hard.mkv"]
    [file] = await fit(source)
    check(file.path, source)
