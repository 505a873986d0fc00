"""Cancels all jobs when one is about to be posted."""

import asyncio  # noqa: F401 - for what a test adds

from bossbot import App, Job, hookimpl


@hookimpl
async def check_upload(job: Job, app: App) -> None:
    assert await app.queue.cancel(job.id)
