"""Cuts off what is too much of a file, so that it fits."""

from bossbot import Bench, MediaFile, hookimpl


@hookimpl
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    fitting = []
    for file in files:
        if file.size > bench.limit_bytes:
            path = bench.path("small.jpg")
            path.write_bytes(file.path.read_bytes()[: bench.limit_bytes])
            file = await bench.file(path)
        fitting.append(file)
    return fitting
