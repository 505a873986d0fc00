"""Answers with its own name, at the place that the name ends with."""

from bossbot import Job, hookimpl

NAME = __name__.rpartition(".")[2]


@hookimpl(tryfirst=NAME.endswith("first"), trylast=NAME.endswith("last"))
async def answer_job(job: Job) -> str:
    return NAME
