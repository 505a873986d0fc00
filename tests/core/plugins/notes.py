"""Writes down, in the data folder, what becomes of the jobs."""

import asyncio
import json

from bossbot import App, Job, Progress, Status, hookimpl


@hookimpl
async def job_changed(job: Job, previous: Status | None, app: App) -> None:
    await asyncio.sleep(0 if previous else 0.05)
    with (app.settings.data_dir / "changes").open("a") as file:
        print(json.dumps([previous, job.status]), file=file)


@hookimpl
async def job_progressed(job: Job, progress: Progress, app: App) -> None:
    with (app.settings.data_dir / "progress").open("a") as file:
        print(job.url, progress.name, progress.share, file=file)
