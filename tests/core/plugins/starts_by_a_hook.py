"""Starts a task in a hook, which says when it begins and ends; or two, and answers with
what they say once the gate is open."""

import asyncio
from typing import Any

from bossbot import Job, hookimpl

NAME = __name__.rpartition(".")[2]


async def work(app: Any) -> None:
    app.heard.put_nowait(f"{NAME} begins")
    try:
        await asyncio.Event().wait()
    finally:
        app.heard.put_nowait(f"{NAME} ends")


async def part(app: Any, name: str) -> str:
    await app.gate.wait()
    return name


@hookimpl
async def answer_job(app: Any, job: Job) -> str | None:
    if job.url != "two":
        app.work = asyncio.create_task(work(app))
        return None
    app.heard.put_nowait("begins")
    async with asyncio.TaskGroup() as group:
        parts = [group.create_task(part(app, name)) for name in ("a", "b")]
    return "".join(task.result() for task in parts)
