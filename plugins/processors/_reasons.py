"""Notes on files for members: why one cannot be posted, or how it was changed."""

import dataclasses

from bossbot import N_, Bench, Cause, JobFailed, MediaFile, _, format_size

CUT = N_("The file is cut short: its end is missing.")
DAMAGED = N_("The file is damaged, or has the wrong type.")
NO_FFMPEG = N_(
    "It is {size}, the limit is {limit}, and making it smaller needs ffmpeg, which is "
    "missing here."
)
TOO_LARGE = N_("It is {size}, the limit is {limit}, and it could not be made smaller.")


def in_place_of(file: MediaFile, made: MediaFile) -> MediaFile:
    """A file with the facts of the one that it was made from."""
    notes = ", ".join(filter(None, (file.note, made.note)))
    return dataclasses.replace(made, note=notes, alt=file.alt)


def failed(file: MediaFile, text: str, detail: str) -> MediaFile:
    """A file that holds nothing to post."""
    failure = JobFailed(Cause.NO_MEDIA, f"{file.name}: {detail}", text)
    return dataclasses.replace(file, failure=failure)


def too_large(file: MediaFile, bench: Bench, text: str, detail: str) -> MediaFile:
    """A file that is too large; the text has places for its size and the limit."""
    size, limit = format_size(file.size), format_size(bench.limit_bytes)
    said = _(text).format(size=size, limit=limit)
    failure = JobFailed(Cause.TOO_LARGE, f"{file.name}: {detail}", said)
    return dataclasses.replace(file, failure=failure)


def without_ffmpeg(file: MediaFile, bench: Bench) -> MediaFile:
    """A file on a machine that has none: it stays as it is if it fits."""
    if file.size <= bench.limit_bytes:
        return file
    return too_large(file, bench, NO_FFMPEG, "no ffmpeg")
