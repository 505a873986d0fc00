"""A check that takes as long as a test wants."""

import asyncio

from bossbot import Job, hookimpl

looked_at: list[str] = []
may_go_on = asyncio.Event()


@hookimpl
async def check_job(job: Job) -> None:
    looked_at.append(job.request_key)
    await may_go_on.wait()
