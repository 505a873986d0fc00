"""An engine that finds the disk full after its first file."""

from bossbot import Engine, Report, Request, hookimpl


def download(request: Request, report: Report) -> None:
    (request.folder / "half.mp4").write_bytes(b"half")
    with open("/dev/full", "wb") as file:
        file.write(b"the other half")


@hookimpl
def register_engines() -> list[Engine]:
    return [
        Engine("full disk", lambda: "1", lambda: None, lambda url: True, download),
    ]
