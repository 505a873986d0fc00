"""A site whose posts are words."""

from bossbot import Engine, Report, Request, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("words", lambda: "1", lambda: None, lambda url: True, download)]


def download(request: Request, report: Report) -> None:
    report.info(text="Only words.")
