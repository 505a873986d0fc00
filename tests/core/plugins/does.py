"""Does what its settings or the link say: see _ways.py."""

from typing import Any

from bossbot_plugins._ways import Config, in_loop

from bossbot import Job, hookimpl

seen: list[str] = []


@hookimpl
async def answer_job(job: Job, config: Config) -> Any:
    return await in_loop(config, job)


@hookimpl
async def process_files(job: Job, files: list[Any], config: Config) -> Any:
    if config.does == "add":
        return [*files, f"{__name__.rpartition('.')[2]} {job.id}"]
    return await in_loop(config, job)


@hookimpl
async def job_changed(job: Job, config: Config) -> None:
    seen.append(job.id)
    await in_loop(config, job)
