"""Hooks behind a decorator of the plugin's own, which is no coroutine function."""

import functools
from collections.abc import Callable
from typing import Any

from bossbot import Job, Refused, hookimpl


def plain(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def wrapper(*args: Any, **options: Any) -> Any:
        return hook(*args, **options)

    return wrapper


@hookimpl
@plain
async def check_job(job: Job) -> None:
    raise Refused("not today")


@hookimpl
@plain
async def answer_job(job: Job) -> str:
    return "an answer"
