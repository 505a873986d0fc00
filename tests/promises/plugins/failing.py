"""An engine that fails with the cause that is set, and a site that is its."""

from typing import Any

from bossbot import (
    Cause,
    Engine,
    JobFailed,
    Platform,
    PlatformConfig,
    Report,
    Request,
    hookimpl,
)


class Config(PlatformConfig):
    cause: Cause


def download(request: Request, report: Report) -> None:
    cause: Any = request.engine_options["cause"]
    raise JobFailed(Cause(cause), "the first engine's words")


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("failing", lambda: "1", lambda: None, lambda url: False, download)]


@hookimpl
def register_platforms(config: Config) -> list[Platform]:
    return [
        Platform(
            name="files",
            pattern=r"https://files\.example/",
            example="https://files.example/",
            engine="failing",
            options={"cause": config.cause.value},
        )
    ]
