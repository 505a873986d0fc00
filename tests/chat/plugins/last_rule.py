"""Refuses a link that ends with "no", after all other checks."""

from bossbot import Job, Refused, hookimpl


@hookimpl(trylast=True)
async def check_job(job: Job) -> None:
    if job.url.endswith("no"):
        raise Refused("no")
