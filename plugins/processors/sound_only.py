"""Takes the sound out of videos, for members who asked for ``audio``, and gives it a
title and a cover. It stays in the site's own format, unless that would not play."""

import base64
import re
import struct
from functools import partial
from pathlib import Path

from bossbot_plugins._sounds import CONTAINERS, ENDINGS

from bossbot import (
    Bench,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Status,
    _,
    hookimpl,
    in_thread,
    one_line,
)

TO_AAC = ("-c:a", "aac", "-b:a", "192k", "-ac", "2")
# What each container needs beside the sound.
HOW = {
    "m4a": ("-movflags", "+faststart"),
    "mp3": ("-id3v2_version", "3"),
}
COVER_PIXELS = 500  # of its width, at most
MAX_COVER_BYTES = 90_000  # so that it can be an argument
MAX_TAG = 200  # characters
# The marks of a title and of a cover that a file has itself, and where they may be.
TITLE = re.compile(rb"TIT2|TT2\x00|\xa9nam|TITLE=", re.IGNORECASE)
COVER = re.compile(rb"APIC|PIC\x00|covr|METADATA_BLOCK_PICTURE=", re.IGNORECASE)
HEAD_BYTES, TAIL_BYTES = 2**18, 2**17


@hookimpl(tryfirst=True)  # so that nothing else works on pictures
async def process_files(
    job: Job, files: list[MediaFile], bench: Bench
) -> list[MediaFile] | None:
    """See docs/plugins.md. Pictures go; what is only text stays."""
    if job.options.get("quality") != "audio" or not files:
        return None
    kinds = [file.mime.partition("/")[0] for file in files]
    covers = {
        file.path.stem.removesuffix(".cover"): file
        for file, kind in zip(files, kinds, strict=True)
        if kind == "image" and file.path.stem.endswith(".cover")
    }
    kept, count = [], sum(kind in ("audio", "video") for kind in kinds)
    for file, kind in zip(files, kinds, strict=True):
        if kind == "text":
            kept.append(file)
        elif kind in ("audio", "video"):
            tags, cover = tags_of(job, count), covers.get(file.path.stem)
            if sound := await sound_of(file, bench, tags, cover):
                kept.append(sound)
    silent = all(file.mime.startswith("text/") for file in kept)
    # While the job is being downloaded, sound may still come, or be there already.
    if silent and job.status is not Status.DOWNLOADING and not job.posts:
        raise JobFailed(Cause.NO_MEDIA, message=_("There is no sound in that."))
    return kept


def tags_of(job: Job, count: int) -> dict[str, str]:
    """What is known of the sound of a job, or of each of several."""
    facts, one = job.facts, count == 1 and (job.facts.get("items") or 1) == 1
    tags = {
        "title" if one else "album": facts.get("title"),
        "artist": facts.get("uploader"),
        "date": str(facts.get("date") or "")[:10],
    }
    return {name: tag for name, said in tags.items() if (tag := tag_of(said))}


def tag_of(said: object) -> str:
    """A text from outside as ffmpeg takes it: the sandbox lets no address pass."""
    text = one_line(str(said or "")).replace("\0", "").replace("://", ":")
    return text[:MAX_TAG].strip()


async def sound_of(
    file: MediaFile, bench: Bench, tags: dict[str, str], cover: MediaFile | None
) -> MediaFile | None:
    """The sound of a file, None if it has none. Without ffmpeg a sound stays as it is."""
    is_sound = file.mime.startswith("audio/")
    try:
        found = await bench.probe(file)
    except JobFailed as error:
        if is_sound:
            return file
        if error.detail.endswith("missing"):  # ffprobe, and ffmpeg with it
            text = _("Taking the sound of a video needs ffmpeg, which is missing here.")
            raise JobFailed(error.cause, error.detail, text) from error
        raise
    if not found.audio:
        return None
    ending = CONTAINERS.get(found.audio, "m4a")
    codec = ("-c:a", "copy") if found.audio in CONTAINERS else TO_AAC
    plays = found.audio in CONTAINERS and ENDINGS.get(file.mime) == ending
    titled = covered = False
    if is_sound:
        titled, covered = await in_thread(partial(marks, file.path))
    if plays and (covered or (not cover and (titled or not tags))):
        return file  # it has what its maker gave it
    path = bench.path(f"{file.path.stem}.{ending}")
    ffmpeg = partial(
        bench.ffmpeg, label=_("Taking the sound"), length_s=found.duration_s or 0
    )
    source = ("-i", file.path)
    sound = ("-map", "0:a:0", *codec)
    target = (*HOW.get(ending, ()), path)
    texts = {} if titled else dict(tags)
    front: tuple[str | Path, ...] = ()
    picture = await small_cover(cover, bench) if cover else None
    if picture and ending == "ogg":
        block = await in_thread(partial(block_of, picture))
        texts["METADATA_BLOCK_PICTURE"] = block
    elif picture and ending != "wav":
        front = ("-i", picture)
        sound += ("-map", "1:v:0", "-c:v", "copy", "-disposition:v:0", "attached_pic")
    told = [word for text in texts.items() for word in ("-metadata", "=".join(text))]
    try:
        await ffmpeg(*source, *front, *sound, *told, *target)
    except JobFailed:
        if plays:
            return file
        await ffmpeg(*source, "-map", "0:a:0", *codec, *target)
    made = await bench.file(path)
    await in_thread(file.path.unlink)
    return made


async def small_cover(cover: MediaFile, bench: Bench) -> Path | None:
    """A small JPEG of a picture; None if that is none."""
    path = bench.path("cover.jpg")
    size = ("-vf", f"scale='min({COVER_PIXELS},iw)':-2", "-pix_fmt", "yuvj420p")
    try:
        await bench.ffmpeg(
            "-i", cover.path, "-frames:v", "1", *size, "-q:v", "5", path
        )  # fmt: skip
    except JobFailed:
        return None
    small = path.is_file() and 0 < path.stat().st_size <= MAX_COVER_BYTES
    return path if small else None


def block_of(picture: Path) -> str:
    """A JPEG as Ogg has its cover: FLAC's picture block, in base64."""
    data, mime = picture.read_bytes(), b"image/jpeg"
    front = struct.pack(">II", 3, len(mime)) + mime + struct.pack(">I", 0)
    sizes = struct.pack(">IIIII", 0, 0, 24, 0, len(data))  # of no account to players
    return base64.b64encode(front + sizes + data).decode()


def marks(path: Path) -> tuple[bool, bool]:
    """Whether a file of sound has a title and a cover, as far as its ends show."""
    with path.open("rb") as file:
        ends = file.read(HEAD_BYTES)
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        ends += file.read(TAIL_BYTES)
    flac = ends.startswith(b"fLaC") and b"image/" in ends
    return bool(TITLE.search(ends)), flac or bool(COVER.search(ends))
