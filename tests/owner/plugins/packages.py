"""Engines with the names of packages that start faster than the real ones."""

from functools import partial
from importlib.metadata import version

from bossbot import Engine, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [
        Engine(
            name,
            partial(version, name),
            lambda: None,
            lambda url: False,
            lambda request, report: None,
        )
        for name in ("pluggy", "rich")
    ]
