"""An engine that takes what its link says, past all that Python could count."""

import mmap
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
    elif what == "shared":  # counted by no limit of the process
        memory = mmap.mmap(-1, 2**30)
        for at in range(0, 2**30, 4096):
            memory[at] = 1
            if at % 2**23 == 0:
                time.sleep(0.02)
    elif what == "file":
        with (request.folder / "x").open("wb") as file:
            while True:
                file.write(bytes(2**20))
    elif what == "files":
        for number in range(1000):
            (request.folder / str(number)).write_bytes(bytes(2**20))
            time.sleep(0.02)
    time.sleep(60)
