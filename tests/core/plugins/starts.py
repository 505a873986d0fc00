"""Starts a task as its name says; the task says when it begins and ends."""

import asyncio
from typing import Any

from bossbot import hookimpl

NAME = __name__.rpartition(".")[2]


async def work(app: Any) -> None:
    app.heard.put_nowait(f"{NAME} begins")
    try:
        await asyncio.Event().wait()
    finally:
        app.heard.put_nowait(f"{NAME} ends")


async def first(app: Any) -> None:
    app.work = asyncio.create_task(work(app))


def later(app: Any) -> None:
    app.work = asyncio.ensure_future(work(app))


@hookimpl
async def run(app: Any) -> None:
    match NAME:
        case "task":
            app.first = asyncio.create_task(first(app))
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(work(app))
        case "timer":
            asyncio.get_running_loop().call_later(0.001, later, app)
        case "library":
            from bossbot_plugins._ways import begin

            app.work = begin(work(app))
        case _:
            app.work = asyncio.create_task(work(app))
