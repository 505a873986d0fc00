"""The first file of a post has failed, and the others have a note."""

from dataclasses import replace

from bossbot import Cause, JobFailed, MediaFile, hookimpl


@hookimpl
async def process_files(files: list[MediaFile]) -> list[MediaFile]:
    cut = JobFailed(Cause.NO_MEDIA, message="It is cut short.")
    noted = [replace(file, note="S") for file in files[1:]]
    return [replace(files[0], failure=cut), *noted]


@hookimpl
async def check_upload(files: list[MediaFile]) -> None:
    assert [file.note for file in files] == ["S"]
