"""Two engines whose versions are dates: of 60 days ago, and of the day before."""

from datetime import UTC, datetime, timedelta

from bossbot import Engine, Report, Request, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [dated("new", 60), dated("old", 61)]


def dated(name: str, days: int) -> Engine:
    def version() -> str:
        return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y.%m.%d")

    return Engine(name, version, lambda: None, lambda url: False, download)


def download(request: Request, report: Report) -> None: ...
