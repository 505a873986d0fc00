"""Turns photos and videos grey before they are posted."""

from bossbot import Bench, MediaFile, hookimpl

ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "video/mp4": "mp4"}


@hookimpl
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    result = []
    for file in files:
        if ending := ENDINGS.get(file.mime):
            path = bench.path(f"grey.{ending}")
            await bench.ffmpeg("-i", file.path, "-vf", "hue=s=0", path, label="Grey")
            file = await bench.file(path)
        result.append(file)
    return result
