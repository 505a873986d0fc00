"""Turns photos and videos gray before they are posted."""

from bossbot import Bench, MediaFile, hookimpl

ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "video/mp4": "mp4"}


@hookimpl
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    result = []
    for file in files:
        if ending := ENDINGS.get(file.mime):
            path = bench.path(f"gray.{ending}")
            await bench.ffmpeg("-i", file.path, "-vf", "hue=s=0", path, label="Gray")
            file = await bench.file(path)
        result.append(file)
    return result
