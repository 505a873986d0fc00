"""Keeps the subtitles that the site has beside the files of a job, and burns them into
the picture for those who asked for ``subtitles``."""

import dataclasses
import re
from functools import partial
from pathlib import Path

from bossbot_plugins._cues import cues
from bossbot_plugins._filters import filters_of, is_hdr
from bossbot_plugins._measure import maps_of, measured
from bossbot_plugins._plan import SHARE, parts_needed, plan
from bossbot_plugins._reasons import in_place_of
from loguru import logger

from bossbot import (
    Bench,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    _,
    hookimpl,
    in_thread,
)

NAME = re.compile(r"(.+_\d+)\.[\w-]{1,30}\.(?:srt|vtt)", re.ASCII)
MAX_BYTES = 2**20


@hookimpl
async def check_job(job: Job) -> None:
    """Has the engines fetch the subtitles in the job's language."""
    job.options["keep_subtitles"] = True


@hookimpl(tryfirst=True)  # before a video is made to fit
async def process_files(
    job: Job, files: list[MediaFile], bench: Bench
) -> list[MediaFile] | None:
    """See docs/plugins.md."""
    of = {file.path: NAME.fullmatch(file.name) for file in files}
    words = {match[1]: file for file in files if (match := of[file.path])}
    if not words:
        return None
    asked = bool(job.options.get("subtitles"))
    kept = []
    for file in files:
        if of[file.path]:
            continue
        text, beside = words.pop(file.path.stem, None), not asked
        video = file.mime.startswith("video/")
        if text and video and asked and job.options.get("quality") != "audio":
            try:
                file, beside = await burnt_in(file, text, bench), True
            except JobFailed as error:  # then they are posted as a file
                log = logger.bind(job=job.id)
                log.warning("subtitles are not burnt in: {}", error.detail)
        kept.append(file)
        if text:
            kept.append(dataclasses.replace(text, beside=beside))
    return kept + [dataclasses.replace(one, beside=not asked) for one in words.values()]


async def burnt_in(video: MediaFile, text: MediaFile, bench: Bench) -> MediaFile:
    """The video with its subtitles in the picture. Raises JobFailed without ffmpeg."""
    source = await measured(video, bench)
    # What is too long for one file is split later.
    room = bench.limit_bytes * SHARE * parts_needed(source, bench.limit_bytes)
    aim = plan(source, room)
    plain = bench.path("subtitles.srt")
    await in_thread(partial(write_plain, text.path, plain))
    path = bench.path(f"{video.path.stem}.mp4")
    # ffmpeg runs in a folder beside this one. An absolute path could hold what its
    # filters read as a command.
    words = [f"subtitles=../{plain.parent.name}/{plain.name}", "format=yuv420p"]
    filters = [*filters_of(source, aim, is_hdr(source.probe)), *words]
    rate = ("-maxrate", str(aim.video_bps), "-bufsize", str(2 * aim.video_bps))
    copied = source.probe.audio == "aac" and source.audio_bps <= aim.sound_kbps * 1100
    sound = ("-c:a", "copy") if copied else ("-c:a", "aac", "-b:a", "128k", "-ac", "2")
    await bench.ffmpeg(
        *("-i", video.path),
        *maps_of(source.probe),
        *("-vf", ",".join(filters)),
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", *rate),
        *(*sound, "-movflags", "+faststart", path),
        label=_("Burning in the subtitles"),
        length_s=source.length_s,
        encodes=True,
    )
    made = await bench.file(path)
    await in_thread(video.path.unlink)
    return in_place_of(video, made)


def write_plain(source: Path, target: Path) -> None:
    """Write subtitles as SRT that is only text, whatever the source holds.

    Raises:
        JobFailed: there are none in it.
    """
    with source.open("rb") as file:
        text = file.read(MAX_BYTES).decode("utf-8-sig", "replace")
    parts = [
        f"{number}\n{start} --> {end}\n{words}\n"
        for number, (start, end, words) in enumerate(cues(text), 1)
    ]
    if not parts:
        raise JobFailed(Cause.NO_MEDIA, "no subtitles in the file")
    target.write_text("\n".join(parts), "utf-8")
