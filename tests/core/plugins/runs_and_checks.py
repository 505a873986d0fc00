"""The same as runs.py, with a check."""

from typing import Any

from bossbot_plugins._ways import Config, in_loop

from bossbot import Job, Refused, hookimpl


@hookimpl
async def run(app: Any, config: Config) -> None:
    app.heard.put_nowait(__name__.rpartition(".")[2])
    await in_loop(config)


@hookimpl
async def check_job(job: Job) -> None:
    raise Refused("no")
