"""Takes the sound out of videos, as it is, for those who asked for ``audio``."""

from bossbot import (
    Bench,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Status,
    _,
    hookimpl,
)

# The container for each codec, of those that play in most places; others go into mka.
CONTAINERS = {
    **dict.fromkeys(("aac", "alac", "ac3", "eac3"), "m4a"),
    **dict.fromkeys(("opus", "vorbis"), "ogg"),
    "mp3": "mp3",
    "flac": "flac",
}


@hookimpl(tryfirst=True)  # so that nothing else works on pictures
async def process_files(
    job: Job, files: list[MediaFile], bench: Bench
) -> list[MediaFile] | None:
    """See docs/plugins.md. Pictures go; what is only text stays."""
    if job.options.get("quality") != "audio" or not files:
        return None
    kept = []
    for file in files:
        kind = file.mime.partition("/")[0]
        if kind in ("audio", "text"):
            kept.append(file)
        elif kind == "video" and (sound := await sound_of(file, bench)):
            kept.append(sound)
    silent = all(file.mime.startswith("text/") for file in kept)
    # While the job is being downloaded, sound may still come, or be there already.
    if silent and job.status is not Status.DOWNLOADING and not job.posts:
        raise JobFailed(Cause.NO_MEDIA, message=_("There is no sound in that."))
    return kept


async def sound_of(file: MediaFile, bench: Bench) -> MediaFile | None:
    """The sound of a video; None if it has none."""
    found = await bench.probe(file)
    if not found.audio:
        return None
    ending = CONTAINERS.get(found.audio, "mka")
    path = bench.path(f"{file.path.stem}.{ending}")
    streams = ("-map", "0:a:0", "-vn", "-sn", "-dn", "-c", "copy")
    label = _("Taking the sound")
    length_s = found.duration_s or 0
    await bench.ffmpeg("-i", file.path, *streams, path, label=label, length_s=length_s)
    file.path.unlink()
    return await bench.file(path)
