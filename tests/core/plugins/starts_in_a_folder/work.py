"""The task says when it begins and ends; another task starts it."""

import asyncio
from typing import Any


async def work(app: Any) -> None:
    app.heard.put_nowait("busy begins")
    try:
        await asyncio.Event().wait()
    finally:
        app.heard.put_nowait("busy ends")


async def first(app: Any) -> None:
    app.work = asyncio.create_task(work(app))


async def start(app: Any) -> None:
    app.first = asyncio.create_task(first(app))
