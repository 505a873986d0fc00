"""A site whose posts are as large as the disk, in a place that outlives the attempt."""

import time

from bossbot import Engine, Report, Request, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("endless", lambda: "1", lambda: None, lambda url: True, download)]


def download(request: Request, report: Report) -> None:
    with (request.cache_dir / request.prefix).open("wb", 0) as file:
        for _ in range(1000):
            file.write(bytes(2**20))
            time.sleep(0.003)  # as fast as a network may bring it
