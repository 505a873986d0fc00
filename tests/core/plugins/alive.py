"""Says when it begins and ends, and fails at every link."""

import asyncio
from typing import Any

from bossbot import hookimpl

VERSION = 1


@hookimpl
async def run(app: Any) -> None:
    app.heard.put_nowait(f"begins {VERSION}")
    try:
        await asyncio.Event().wait()
    finally:
        app.heard.put_nowait(f"ends {VERSION}")


@hookimpl
async def answer_job() -> None:
    raise ZeroDivisionError
