"""Answers with what a module of its own says, which has it from another one; and an
engine of our name writes that and words of a library into its file."""

from bossbot_plugins._more import MORE

from bossbot import Engine, Job, Report, Request, hookimpl

from .words import greet


@hookimpl
async def answer_job(job: Job) -> str:
    return greet()


def supports(url: str) -> bool:
    return "toy." in url


def download(request: Request, report: Report) -> None:
    path = request.folder / f"{request.prefix}_0001.txt"
    path.write_text(greet() + MORE)
    report.file(path)


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("yt-dlp", lambda: "1", lambda: None, supports, download, True)]
