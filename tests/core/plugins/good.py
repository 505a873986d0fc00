"""Answers every link."""

from bossbot import Job, hookimpl


@hookimpl
async def answer_job(job: Job) -> str:
    return "good"
