"""A site whose links say what is downloaded: see test_command_line.py."""

import os
import time

from bossbot import Cause, Engine, JobFailed, Platform, Report, Request, hookimpl


def download(request: Request, report: Report) -> None:
    what = request.url.rpartition("/")[2]
    if what == "gone":
        raise JobFailed(Cause.GONE, "404")
    if what == "hang":
        (request.cache_dir / "pid").write_text(str(os.getpid()))
        time.sleep(600)
    report.info(title=f"A toy: {what}", items=2)
    for number, size in ((1, 10), (2, 5000)):
        path = request.folder / f"{request.prefix}_{number:04}.txt"
        path.write_text(str(number) * size)
        report.file(path)


@hookimpl
def register_engines() -> list[Engine]:
    return [
        Engine("toy", lambda: "9.9", lambda: None, lambda url: "toy." in url, download)
    ]


@hookimpl
def register_platforms() -> list[Platform]:
    return [
        Platform("shop", r"https://shop\.toy\.", "https://shop.toy.example/", "toy")
    ]
