"""Leaves out the first file."""

from bossbot import MediaFile, hookimpl


@hookimpl
def process_files(files: list[MediaFile]) -> list[MediaFile]:
    return files[1:]
