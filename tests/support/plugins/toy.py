"""The engine of the toy site, which does what a link says: see discord_support.py."""

import json
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bossbot import Cause, Engine, JobFailed, Progress, Report, Request, hookimpl

# It is linked to from the owner's folder; beside the file itself lie media and gates.
MEDIA = Path(__file__).resolve().parent
sys.path.append(str(MEDIA))  # what is on it may be read in a child


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("toy", lambda: "1", lambda: None, supports, download)]


def supports(url: str) -> bool:
    return urlsplit(url).hostname == "toy.example"


def gates_of(request: Request) -> Path:
    """The gates of the stage whose folder the request's is in."""
    folders = request.folder.parents
    names = (f"{folder.parent.name}-{folder.name}" for folder in folders)
    return next(p for name in names if (p := MEDIA / "gates" / name).is_dir())


def download(request: Request, report: Report) -> None:
    gates, number, alt = gates_of(request), 0, ""
    steps = [unquote(step) for step in urlsplit(request.url).path.split("/")[1:]]
    for step in steps:
        what, _, value = step.partition("=")
        if what == "file":
            number += 1
            source = MEDIA / value
            size = source.stat().st_size
            path = request.folder / f"{request.prefix}_{number:04d}{source.suffix}"
            report.progress(Progress(value, size // 2, size, 1e6, number))
            shutil.copyfile(source, path)
            report.file(path, alt)
            alt = ""
        elif what == "wait":
            done = 0
            while not (gates / value).exists():
                done += 1000
                report.progress(Progress(f"{value}.mp4", done, 10_000_000, 50_000))
                time.sleep(0.01)
        elif what == "hang":
            report.progress(Progress(value, 1))
            while not (gates / value).exists():
                time.sleep(0.01)
        elif what == "sleep":
            time.sleep(float(value))
        elif what == "facts":
            report.info(**json.loads((gates / f"{value}.json").read_text()))
        elif what == "alt":
            alt = json.loads((gates / f"{value}.json").read_text())
        elif what == "lose":
            report.item_failed(JobFailed(Cause(value), "one item"))
        elif what == "fail":
            raise JobFailed(Cause(value), "as the link says")
        elif what == "busy" and not (gates / value).exists():
            raise JobFailed(Cause.RATE_LIMITED, "busy", retry_after_s=0)
        elif what == "steps":
            steps += json.loads((gates / f"{value}.json").read_text())
