"""Does in each check what its settings or the link say: see _ways.py."""

from typing import Any

from bossbot_plugins._ways import Config, in_loop

from bossbot import Job, hookimpl


@hookimpl
async def check_action(config: Config) -> Any:
    return await in_loop(config)


@hookimpl
async def check_job(job: Job, config: Config) -> Any:
    return await in_loop(config, job)


@hookimpl
async def check_claim(config: Config) -> Any:
    return await in_loop(config)


@hookimpl
async def check_attempt(job: Job, config: Config) -> Any:
    return await in_loop(config, job)


@hookimpl
async def check_upload(job: Job, config: Config) -> Any:
    return await in_loop(config, job)
