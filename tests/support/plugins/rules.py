"""Refuses a link that ends with /no, and answers one that ends with /known."""

from bossbot import Job, Refused, hookimpl


@hookimpl
async def check_job(job: Job) -> None:
    if job.url.endswith("/no"):
        raise Refused("no")


@hookimpl
async def answer_job(job: Job) -> str | None:
    return "It is here." if job.url.endswith("/known") else None
