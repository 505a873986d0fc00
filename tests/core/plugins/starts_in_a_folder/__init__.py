"""Starts a task in a module of its own."""

from typing import Any

from bossbot import hookimpl

from .work import start


@hookimpl
async def run(app: Any) -> None:
    await start(app)
