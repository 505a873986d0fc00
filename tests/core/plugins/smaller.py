"""Says of each file that it was made to fit."""

import dataclasses

from bossbot import MediaFile, hookimpl


@hookimpl
async def process_files(files: list[MediaFile]) -> list[MediaFile]:
    return [dataclasses.replace(file, note="1080p to 720p") for file in files]
