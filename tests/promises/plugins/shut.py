"""Refuses what comes after a job's first post."""

from bossbot import Job, Refused, hookimpl


@hookimpl
async def check_upload(job: Job) -> None:
    if job.posted:
        raise Refused("Enough for today.")
