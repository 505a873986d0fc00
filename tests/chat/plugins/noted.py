"""Gives every file a note, as what makes files fit does."""

from dataclasses import replace

from bossbot import MediaFile, hookimpl

NOTE = ""


@hookimpl
async def process_files(files: list[MediaFile]) -> list[MediaFile]:
    return [replace(file, note=NOTE) for file in files]
