"""Answers with what it imports from a library."""

from bossbot_plugins._words import WORD

from bossbot import Job, hookimpl


@hookimpl
async def answer_job(job: Job) -> object:
    return WORD
