"""One hook takes until a test lets it go on, or so long, for links with a part."""

import asyncio
import contextlib

from bossbot import Job, hookimpl

HOOK, PART, FOR_S = "check_job", "", 600.0
looked_at: list[str] = []
may_go_on = asyncio.Event()


async def take_time(hook: str, job: Job) -> None:
    if hook == HOOK and PART in job.url:
        looked_at.append(job.request_key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOR_S):
                await may_go_on.wait()


@hookimpl
async def check_job(job: Job) -> None:
    await take_time("check_job", job)


@hookimpl
async def process_files(job: Job) -> None:
    await take_time("process_files", job)


@hookimpl
async def job_changed(job: Job) -> None:
    await take_time("job_changed", job)
