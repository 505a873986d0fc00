"""A check, and hooks that are none: each does what the link says, see _ways.py."""

from typing import Any

from bossbot_plugins._ways import Config, in_loop, in_thread

from bossbot import Job, hookimpl


@hookimpl
async def check_job(job: Job, config: Config) -> Any:
    return await in_loop(config, job)


@hookimpl
async def answer_job(job: Job, config: Config) -> Any:
    return await in_loop(config, job)


@hookimpl
def job_changed(job: Job, config: Config) -> None:
    in_thread(config, job)


@hookimpl
async def process_files(job: Job, config: Config) -> Any:
    return await in_loop(config, job)
