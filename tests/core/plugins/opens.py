"""A site whose links are opened as they are: see test_command_line.py."""

from urllib.request import urlopen

from bossbot import Engine, Report, Request, hookimpl


def download(request: Request, report: Report) -> None:
    with urlopen(request.url) as answer:
        path = request.folder / f"{request.prefix}_0001.jpg"
        path.write_bytes(answer.read())
        report.file(path)


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("opens", lambda: "1", lambda: None, lambda url: True, download)]
