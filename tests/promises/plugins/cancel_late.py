"""Cancels all jobs when one is about to be posted."""

from bossbot import App, Job, hookimpl


@hookimpl
async def check_upload(job: Job, app: App) -> None:
    assert await app.queue.cancel(job.id)
