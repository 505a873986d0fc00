"""Makes other files of pictures, under other names; leaves the order to the last."""

from bossbot import Bench, MediaFile, hookimpl


@hookimpl
async def process_files(files: list[MediaFile], bench: Bench) -> list[MediaFile]:
    made = []
    for file in files[1:]:
        path = bench.path(f"{file.path.stem}.png")
        path.write_bytes(file.path.read_bytes())
        made.append(await bench.file(path))
    return [*made[::-1], files[0]]
