"""The same as checks.py in plain functions."""

from typing import Any

from bossbot_plugins._ways import Config, in_thread

from bossbot import Job, hookimpl


@hookimpl
def check_action(config: Config) -> Any:
    return in_thread(config)


@hookimpl
def check_job(job: Job, config: Config) -> Any:
    return in_thread(config, job)


@hookimpl
def check_claim(config: Config) -> Any:
    return in_thread(config)


@hookimpl
def check_attempt(job: Job, config: Config) -> Any:
    return in_thread(config, job)


@hookimpl
def check_upload(job: Job, config: Config) -> Any:
    return in_thread(config, job)
