"""Asks the queue until it answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loguru import logger

from bossbot import Job, OutOfReach, Refused

T = TypeVar("T")


async def insist(ask: Callable[[], Awaitable[T]], job: Job, wait_s: float) -> T:
    """The answer of the queue about a job, or of a check that asks it, even if that
    takes a while: a full disk, a lock. A stop ends the wait; the next start takes up
    the job as it is stored. Raises the refusal of a check."""
    level = "ERROR"  # the first time
    while True:
        try:
            return await ask()
        except Exception as error:  # each queue has its own
            if isinstance(error, Refused) and not isinstance(error, OutOfReach):
                raise
            log = logger.bind(job=job.id)
            log.log(level, "the queue does not answer: {}", error)
            level = "DEBUG"
            await asyncio.sleep(wait_s)
