"""An engine that takes what its link says, past all that Python could count."""

import os
import time
from urllib.parse import urlsplit

from bossbot import Engine, Report, Request, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("greedy", lambda: "1", lambda: None, lambda url: True, download)]


def download(request: Request, report: Report) -> None:
    what = urlsplit(request.url).path[1:]
    if what == "private":
        bytearray(2**30)
    elif what == "divided":  # no process takes more than it may
        for _ in range(24):
            if not os.fork():
                break
            time.sleep(0.1)
        taken = b"x" * 2**23
        time.sleep(60)
        del taken
    elif what == "file":
        with (request.folder / "x").open("wb") as file:
            while True:
                file.write(bytes(2**20))
    elif what == "files":
        for number in range(1000):
            (request.folder / str(number)).write_bytes(bytes(2**20))
            time.sleep(0.02)
    time.sleep(60)
