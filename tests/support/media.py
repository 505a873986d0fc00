"""Real, tiny media, so that tests download what a player would open.

Every function takes a folder and keeps what it made there: with a folder that lives
as long as the test run, each distinct file is made once, by ffmpeg unless it is a still
picture, which takes less than starting ffmpeg. The same arguments give
the same file; another number gives other bytes.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

# Width and height are even (yuv420p), and small enough to encode in milliseconds.
SIZE = "96x64"
X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
CODECS = {
    "mp4": [*X264, "-c:a", "aac", "-b:a", "32k", "-movflags", "+faststart"],
    "webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"],
    "mp3": ["-c:a", "libmp3lame", "-b:a", "32k"],
    "m4a": ["-c:a", "aac", "-b:a", "32k"],
}


def image(folder: Path, number: int = 1, kind: str = "jpg") -> Path:
    """A picture of one colour; `kind` is jpg, png, webp, or gif, which moves."""
    colour = f"{number * 0x2F5A1D % 0x1000000:06x}"
    target = folder / f"image-{number}.{kind}"
    if kind == "gif":
        source = ["-f", "lavfi", "-i", f"color=c=0x{colour}:s={SIZE}:r=5"]
        return _made(target, [*source, "-frames:v", "2"])
    width, height = map(int, SIZE.split("x"))
    picture = Image.new("RGB", (width, height), f"#{colour}")
    return _once(target, picture.save)


def video(
    folder: Path,
    number: int = 1,
    seconds: int = 1,
    kind: str = "mp4",
    *,
    picture: bool = True,
    sound: bool = True,
) -> Path:
    """A moving test pattern with a tone; `kind` is mp4 (H.264, AAC) or webm (VP9).

    Without `picture` or without `sound` it has the other stream alone, as sites serve
    them for DASH.
    """
    name = f"video-{number}-{seconds}s"
    name += "" if picture and sound else "-picture" if picture else "-sound"
    pattern = f"testsrc2=s={SIZE}:r=10,hue=h={number * 37}"
    tone = f"sine=frequency={200 + 10 * number}:sample_rate=44100"
    sources = ["-f", "lavfi", "-i", pattern] if picture else []
    sources += ["-f", "lavfi", "-i", tone] if sound else []
    length = ["-t", str(seconds)]
    return _made(folder / f"{name}.{kind}", [*sources, *length, *CODECS[kind]])


def audio(folder: Path, number: int = 1, seconds: int = 1, kind: str = "mp3") -> Path:
    """A tone; `kind` is mp3 or m4a."""
    tone = f"sine=frequency={200 + 10 * number}:sample_rate=44100"
    source = ["-f", "lavfi", "-i", tone, "-t", str(seconds)]
    return _made(folder / f"audio-{number}-{seconds}s.{kind}", source + CODECS[kind])


def converted(source: Path, name: str, *arguments: str) -> Path:
    """The source as ffmpeg converts it with these arguments, beside it."""
    return made_of(["-i", str(source)], source.parent, {name: arguments})[0]


def made_of(
    inputs: Sequence[str], folder: Path, outputs: Mapping[str, Sequence[str]]
) -> list[Path]:
    """Several files, by their names and arguments, from the same inputs: ffmpeg starts
    once, which takes longer than to make most of them."""
    targets = {folder / name: arguments for name, arguments in outputs.items()}
    _made_at_once(inputs, targets)
    return list(targets)


def hls(
    folder: Path,
    number: int = 1,
    *,
    picture: bool = True,
    sound: bool = True,
    fragmented: bool = False,
) -> Path:
    """An HLS playlist of one segment, "0.ts" or "0.m4s" with "init.mp4", in a folder of
    its own."""
    source = video(folder, number, picture=picture, sound=sound)
    name = source.stem + ("-fragmented" if fragmented else "-ts")
    kind = "fmp4" if fragmented else "mpegts"
    segment = "%d.m4s" if fragmented else "%d.ts"
    target = folder / f"{name}-{os.getpid()}"  # not whole at once
    target.mkdir(exist_ok=True)
    how = ["-c", "copy", "-f", "hls", "-hls_time", "10", "-hls_playlist_type", "vod"]
    names = ["-hls_segment_type", kind, "-hls_segment_filename", str(target / segment)]
    return _made(target / "list.m3u8", ["-i", str(source), *how, *names])


def padded_image(folder: Path, size_bytes: int, number: int = 1) -> Path:
    """A jpg of exactly `size_bytes`: decoders ignore what follows its end marker."""
    original = image(folder, number)
    return _padded(original, folder / f"image-{number}-{size_bytes}b.jpg", size_bytes)


def padded_video(folder: Path, size_bytes: int, number: int = 1) -> Path:
    """An mp4 of exactly `size_bytes`, filled up with a `free` box (a sparse file)."""
    original = video(folder, number)
    box_bytes = size_bytes - original.stat().st_size
    header = box_bytes.to_bytes(4, "big") + b"free" if box_bytes >= 8 else b""
    if not header and box_bytes:
        raise ValueError(f"{original.name} cannot be padded to {size_bytes} bytes")
    target = folder / f"video-{number}-{size_bytes}b.mp4"
    return _padded(original, target, size_bytes, header)


def _padded(original: Path, target: Path, size_bytes: int, header: bytes = b"") -> Path:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(original.read_bytes() + header)
            if file.tell() > size_bytes:
                raise ValueError(f"{original.name} is over {size_bytes} bytes already")
            file.truncate(size_bytes)

    return _once(target, make)


def _made(target: Path, arguments: list[str]) -> Path:
    _made_at_once((), {target: arguments})
    return target


def _made_at_once(inputs: Sequence[str], targets: Mapping[Path, Sequence[str]]) -> None:
    """Make what is missing, under other names first: parallel workers never see half."""
    missing = {path: _half(path) for path in targets if not path.exists()}
    if not missing:
        return
    program = shutil.which("ffmpeg")
    if program is None:
        raise RuntimeError("these tests need ffmpeg; install it and try again")
    command = [program, "-nostdin", "-loglevel", "error", "-y", *inputs]
    exact = ["-fflags", "+bitexact", "-flags", "+bitexact"]  # no dates, no versions
    for path, half in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        command += [*targets[path], *exact, str(half)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        names = ", ".join(path.name for path in missing)
        raise RuntimeError(f"ffmpeg could not make {names}: {done.stderr}")
    for path, half in missing.items():
        half.replace(path)


def _half(target: Path) -> Path:
    return target.with_name(f"{os.getpid()}-{target.name}")


def _once(target: Path, make: Callable[[Path], None]) -> Path:
    """The target, which is made if it is missing."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        half = _half(target)
        make(half)
        half.replace(target)
    return target


@dataclass
class Facts:
    """What is in a file."""

    length_s: float
    codecs: dict[str, list[str]]  # by the kind of the stream
    tags: dict[str, str]  # of the file and its sound
    # Of the first picture:
    width: int = 0
    height: int = 0
    shape: Fraction = Fraction(1)  # width to height, as it is shown
    pixel_format: str = ""
    light: tuple[int, int] = (0, 0)  # its curve and its colours
    interlaced: bool = False
    extra: bytes = field(default=b"", repr=False)  # what the decoder is told


def opened(path: Path) -> Any:
    """By PyAV, which has an ffmpeg of its own: to start ffprobe takes ten times as long."""
    import av  # only where it is needed

    return av.open(str(path))


def facts(path: Path) -> Facts:
    """What is in a file that was made."""
    with opened(path) as file:
        codecs: dict[str, list[str]] = {}
        tags = dict(file.metadata)
        for stream in file.streams:
            codec = stream.codec_context and stream.codec_context.codec.canonical_name
            codecs.setdefault(stream.type, []).append(codec or "")
            tags |= stream.metadata if stream.type == "audio" else {}
        tags = {name.lower(): value for name, value in tags.items()}
        found = Facts((file.duration or 0) / 1e6, codecs, tags)
        if file.streams.video:
            video = file.streams.video[0]
            picture = next(file.decode(video))
            found.width, found.height = picture.width, picture.height
            found.shape = Fraction(picture.width, picture.height)
            found.shape *= video.sample_aspect_ratio or 1
            if picture.rotation % 180:
                found.shape = 1 / found.shape
            context = video.codec_context
            found.pixel_format = context.pix_fmt or ""
            found.light = (context.color_trc, context.color_primaries)
            found.interlaced = picture.interlaced_frame
            found.extra = bytes(context.extradata or b"")
    return found
