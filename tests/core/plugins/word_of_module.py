"""Answers with what is in a library that it imports."""

from bossbot_plugins import _words

from bossbot import Job, hookimpl


@hookimpl
async def answer_job(job: Job) -> object:
    return _words.WORD
