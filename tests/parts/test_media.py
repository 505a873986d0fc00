"""What files hold, by their content: real media of many kinds, and what is none."""

import random
from collections.abc import Callable
from pathlib import Path

import media
import pytest
from bossbot_plugins._media import PROBED, SUFFIXES, mime_of, sniff, suffix_for
from bossbot_plugins.file_storage import FileStorage, suffix_of
from conftest import make_job
from platform_support import Web

from bossbot import App, Cause, JobFailed, MediaFile, Settings

pytest_plugins = ("platform_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

COPY = ("-c", "copy")
FRAGMENTS = (*COPY, "-movflags", "frag_keyframe+empty_moov+default_base_moof")
AV1 = ("-an", "-c:v", "libaom-av1", "-cpu-used", "8", "-pix_fmt", "yuv420p")


async def measured(path: Path) -> MediaFile:
    """What the storage makes of a file without ffprobe's word, which needs a home."""
    return await FileStorage(App(Settings())).inspect(path, path.parent)


async def held(path: Path) -> tuple[str, str]:
    """What the content of a file is, and its ending; its name says nothing."""
    bare = path.with_name(f"{path.name}-bare")
    bare.write_bytes(path.read_bytes())
    file = await measured(bare)
    return file.mime, suffix_of(file)


@pytest.fixture
def clip(media_folder: Path) -> Path:
    return media.video(media_folder)


@pytest.fixture
def tone(media_folder: Path) -> Path:
    return media.audio(media_folder)


# MP4 and its kin


BRANDS = [
    *("isom", "iso5", "iso6", "dash", "cmfc"),
    *("msdh", "avc1", "MSNV", "f4v ", "zzzz"),
]


async def test_mp4_is_a_video_whatever_its_brand(clip: Path) -> None:
    videos = {f"{one}.mp4": (*FRAGMENTS, "-brand", one) for one in BRANDS}
    sounds = {f"{one}-sound.mp4": (*COPY, "-vn", "-brand", one) for one in BRANDS}
    made = media.made_of(["-i", str(clip)], clip.parent, {**videos, **sounds})
    for brand, video, sound in zip(BRANDS, made[:10], made[10:], strict=True):
        assert video.read_bytes()[8:12] == brand.encode()
        assert await held(video) == ("video/mp4", "mp4"), brand
        assert await held(sound) == ("audio/mp4", "m4a"), brand


def _without_first_box(data: bytes) -> bytes:
    return data[int.from_bytes(data[:4], "big") :]


def _renamed(data: bytes) -> bytes:
    return data[:4] + b"styp" + data[8:]


def _behind_padding(data: bytes) -> bytes:
    return b"\0\0\1\0free" + bytes(248) + data


def _moof_first(data: bytes) -> bytes:
    start = data.index(b"moof") - 4
    return data[start:] + _without_first_box(data[:start])


@pytest.mark.parametrize(
    ("options", "change"),
    [
        *((COPY, change) for change in (_without_first_box, _renamed, _behind_padding)),
        *((FRAGMENTS, change) for change in (_without_first_box, _renamed)),
        *((FRAGMENTS, change) for change in (_behind_padding, _moof_first)),
    ],
)
async def test_mp4_may_begin_with_another_box(
    clip: Path,
    tmp_path: Path,
    change: Callable[[bytes], bytes],
    options: tuple[str, ...],
) -> None:
    made = media.converted(clip, f"boxes-{len(options)}.mp4", *options)
    data = made.read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(change(data))
    assert await held(path) == ("video/mp4", "mp4")


async def test_movie_with_its_index_at_the_end(clip: Path) -> None:
    made = media.converted(clip, "late.mp4", *COPY)
    assert made.read_bytes().index(b"mdat") < made.read_bytes().index(b"moov")
    assert await held(made) == ("video/mp4", "mp4")
    assert await held(media.converted(clip, "a.mov", *COPY)) == (
        "video/quicktime",
        "mov",
    )


async def test_broken_boxes_break_nothing(clip: Path, tmp_path: Path) -> None:
    """Whatever a file says of its sizes, there is an answer."""
    data = media.converted(clip, "boxes.mp4", *FRAGMENTS).read_bytes()[:3000]
    chance, path = random.Random(3), tmp_path / "a"
    huge = b"\0\0\0\1moov" + b"\xff" * 8
    path.write_bytes(data[:24] + huge + bytes(100))
    assert not sniff(path).sure
    for _ in range(2000):
        broken = bytearray(data[: chance.randrange(1, len(data))])
        for _ in range(3):
            place = chance.randrange(len(broken))
            wild = (b"\xff" * 8, bytes(4), b"\0\0\0\1", b"moov", b"meta", huge)
            broken[place : place + 4] = chance.choice(wild)
        path.write_bytes(broken)
        sniff(path)


async def test_still_and_moving_avif(clip: Path, media_folder: Path) -> None:
    still = media.image(media_folder)
    still = media.converted(still, "a.avif", *AV1, "-still-picture", "1")
    moving = media.converted(clip, "b.avif", *AV1, "-frames:v", "3")
    assert moving.read_bytes()[8:12] == b"avis"
    assert await held(still) == await held(moving) == ("image/avif", "avif")
    other = still.with_name("c.avif")
    other.write_bytes(still.read_bytes().replace(b"avif", b"mif1"))
    assert await held(other) == ("image/avif", "avif")


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"miaf", b"zzzz"])
async def test_heic(tmp_path: Path, brand: bytes) -> None:
    def box(name: bytes, content: bytes) -> bytes:
        return (8 + len(content)).to_bytes(4, "big") + name + content

    handler = box(b"hdlr", bytes(8) + b"pict" + bytes(13))
    items = box(
        b"iinf", bytes(4) + b"\0\1" + box(b"infe", b"\2" + bytes(7) + b"hvc1\0")
    )
    path = tmp_path / "a"
    path.write_bytes(
        box(b"ftyp", brand + bytes(4) + b"mif1")
        + box(b"meta", bytes(4) + handler + items)
        + box(b"mdat", bytes(100))
    )
    assert await held(path) == ("image/heic", "heic")


async def test_jpeg_xl_in_a_box_and_bare(tmp_path: Path) -> None:
    boxed, bare = tmp_path / "a", tmp_path / "a.jxl"
    boxed.write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl " + bytes(8))
    bare.write_bytes(b"\xff\x0a" + bytes(50))
    assert await held(boxed) == ("image/jxl", "jxl")
    assert (await measured(bare)).mime == "image/jxl"
    with pytest.raises(JobFailed):
        await held(bare)


# Sound


MP3S = {
    f"tone{number}.mp3": options
    for number, options in enumerate(
        ["", "-ar 22050", "-ar 8000", "-q:a 4", "-f mp2", "-ac 2"]
    )
}


@pytest.mark.parametrize(
    "name", MP3S, ids=[options or "plain" for options in MP3S.values()]
)
@pytest.mark.parametrize("lead", ["none", "zeros", "junk", "tag", "padded tag", "tags"])
async def test_mp3_whose_first_frame_comes_late(
    tone: Path, tmp_path: Path, name: str, lead: str
) -> None:
    outputs = {name: options.split() for name, options in MP3S.items()}
    media.made_of(["-i", str(tone)], tone.parent, outputs)
    made = tone.with_name(name)
    tag = b"ID3\4\0\0" + bytes([0, 0, 78, 16]) + bytes(10000)
    before = {
        "none": b"",
        "zeros": bytes(300_000),
        "junk": random.Random(1).randbytes(30_000),
        "tag": tag,
        "padded tag": tag + bytes(100_000),
        "tags": tag + tag,
    }
    path = tmp_path / "a"
    path.write_bytes(before[lead] + made.read_bytes())
    assert await held(path) == ("audio/mpeg", "mp3")


SOUNDS = {
    "a.ogg": (("-c:a", "libvorbis"), "audio/ogg"),
    "a.opus": (("-c:a", "libopus"), "audio/ogg"),
    "a.oga": (("-c:a", "flac"), "audio/ogg"),
    "a.flac": ((), "audio/x-flac"),
    "a.wav": ((), "audio/x-wav"),
    "a.aac": ((), "audio/aac"),
    "a.mka": (COPY, "audio/x-matroska"),
    "a.webm": (("-c:a", "libopus"), "audio/webm"),
    "a.m4a": ((), "audio/mp4"),
    "a.mp4": ((), "audio/mp4"),
    "b.mov": ((), "audio/mp4"),
}
# Of which ffprobe knows.
RARE = {
    "a.eac3": ((), "audio/eac3"),
    "a.dts": (("-strict", "-2"), "audio/vnd.dts"),
    "a.au": ((), "audio/basic"),
    "a.w64": ((), "audio/x-w64"),
    "a.wv": ((), "audio/x-wavpack"),
    "a.tta": ((), "audio/x-tta"),
    "a.wma": ((), "audio/x-ms-wma"),
    "a.caf": ((), "audio/x-caf"),
    "sound.ts": ((), "audio/mp2t"),
}


@pytest.fixture
def sounds(tone: Path) -> dict[str, Path]:
    """Of each kind, by name."""
    outputs = {name: options for name, (options, _) in {**SOUNDS, **RARE}.items()}
    made = media.made_of(["-i", str(tone)], tone.parent, outputs)
    return {path.name: path for path in made}


async def test_sound(sounds: dict[str, Path]) -> None:
    for name, (_, mime) in SOUNDS.items():
        assert (await held(sounds[name]))[0] == mime, name


async def test_ogg_is_a_video_by_what_is_in_it(clip: Path, tmp_path: Path) -> None:
    options = ("-c:v", "libtheora", "-c:a", "libvorbis", "-f", "ogg")
    made = media.converted(clip, "theora.ogg", *options)
    for name in ("theora.ogg", "theora.ogv", "theora.bin"):
        named = tmp_path / name
        named.write_bytes(made.read_bytes())
        assert await held(named) == ("video/ogg", "ogv"), name
        assert suffix_of(await measured(named)) == ("ogg" if "ogg" in name else "ogv")


async def test_every_kind_that_ffprobe_knows_has_an_ending() -> None:
    for both in PROBED.values():
        for mime in both:
            assert mime in SUFFIXES and mime_of(suffix_for(mime, "")) != "", mime
            assert suffix_for(mime, "exe") in SUFFIXES[mime].split()


# Transport streams


@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("size", [188, 192, 204])
async def test_packets_of_every_size(
    clip: Path, tmp_path: Path, size: int, before: int
) -> None:
    stream = media.converted(clip, "a.ts", *COPY).read_bytes()
    packets = [stream[n : n + 188] for n in range(0, len(stream), 188)]
    if size == 192:
        packets = [b"\1\2\3\4" + packet for packet in packets]
    if size == 204:
        packets = [packet + bytes(16) for packet in packets]
    path = tmp_path / "a"
    path.write_bytes(b"".join(packets)[before * 10 :])
    assert await held(path) == ("video/mp2t", "ts")


# What ffprobe says, where the first bytes do not tell


async def inspected(app: App, path: Path) -> str:
    """What the storage says that a file of an attempt holds, "" when it refuses."""
    folder = await app.storage.attempt_folder(make_job())
    copy = folder / "files" / path.name
    copy.write_bytes(path.read_bytes())
    try:
        return (await app.storage.inspect(copy, copy.parent)).mime
    except JobFailed as error:
        assert error.cause is Cause.NO_MEDIA
        return ""


async def test_ffprobe_tells_sound_from_videos(
    web: Web, clip: Path, sounds: dict[str, Path]
) -> None:
    app, outputs = web.app(), {"whole.ts": COPY, "a.wmv": ()}
    stream, film = media.made_of(["-i", str(clip)], clip.parent, outputs)
    assert await inspected(app, stream) == "video/mp2t"
    assert await inspected(app, film) == "video/x-ms-wmv"
    for name, (_, mime) in RARE.items():
        assert await inspected(app, sounds[name]) == mime, name


async def test_ffprobe_refuses_what_only_looks_like_a_video(
    web: Web, clip: Path, tmp_path: Path
) -> None:
    data = media.converted(clip, "parts.mp4", *FRAGMENTS).read_bytes()
    app, noise = web.app(), random.Random(2).randbytes(50_000)
    # Programs jump back so; it looks like frames of sound of 64 bytes each.
    table = b"".join(
        b"\xff\xff\x25" + bytes([n]) + bytes(60) for n in range(250, 2, -8)
    )
    for name, content in (
        ("head.mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + noise),
        ("part.mp4", data[data.index(b"moof") - 4 :]),
        ("noise.aac", noise),
        ("noise.jpg", noise),
        ("zeros.mp4", bytes(50_000)),
        ("list.mp4", b"\0#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"),
        ("page.mp4", b"<!DOCTYPE html><html>\0\1\2" + noise),
        ("page.mp3", b"<html>\0" + media.audio(clip.parent).read_bytes()),
        ("archive.mp3", b"PK\3\4" + media.audio(clip.parent).read_bytes()),
        ("program.mp3", b"ID3\4\0\0\0\0\0\0\x7fELF" + table),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        assert await inspected(app, path) == "", name


async def test_what_ffprobe_knew_is_known_of_a_kept_file(
    web: Web, sounds: dict[str, Path]
) -> None:
    app, job = web.app(), make_job()
    folder = await app.storage.attempt_folder(job)
    path = folder / "files" / "sound.bin"
    path.write_bytes(sounds["a.caf"].read_bytes())
    file = await app.storage.inspect(path, path.parent)
    [kept] = await app.storage.keep(job, [file])
    assert kept.path.suffix == ".caf"
    assert await app.storage.kept_files(job, [kept.name]) == [kept]


async def test_ordinary_media_need_no_ffprobe(
    web: Web, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = (clip, media.image(clip.parent), media.audio(clip.parent))
    monkeypatch.setattr("bossbot_plugins.file_storage.find_programs", lambda: 1 / 0)
    app = web.app()
    for made in ordinary:
        assert await inspected(app, made)


# Through an engine


@pytest.mark.parametrize("fragmented", [False, True])
async def test_hls_by_yt_dlp(web: Web, media_folder: Path, fragmented: bool) -> None:
    playlist = media.hls(media_folder, fragmented=fragmented)
    for path in playlist.parent.iterdir():
        web.sites.serve(f"https://files.example/{path.name}", path)
    got = await web.fetch("https://files.example/list.m3u8", engine="yt-dlp")
    assert got.error is None and len(got.contents) == 1
    assert Path(got.names[0]).suffix == ".mp4"


async def test_odd_brand_by_gallery_dl(web: Web, clip: Path) -> None:
    made = media.converted(clip, "cmfc.mp4", *FRAGMENTS, "-brand", "cmfc")
    link = web.sites.serve("https://files.example/a.mp4", made)
    assert (await web.fetch(link)).contents == [made.read_bytes()]
