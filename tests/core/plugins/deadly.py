"""An engine that ends the process that asks it about a link."""

import os

from bossbot import Engine, hookimpl


def supports(url: str) -> bool:
    os._exit(1)


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("deadly", lambda: "1", lambda: None, supports, print)]
