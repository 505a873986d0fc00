"""Answers with the name of the folder that it lies in."""

from pathlib import Path

from bossbot import Job, hookimpl


@hookimpl
async def answer_job(job: Job) -> str:
    return Path(__file__).parent.name
