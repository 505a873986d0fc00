"""What a hook under test does: as its settings say, or as the end of the link says."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from bossbot import Cause, Job, JobFailed, PluginConfig, Refused

begun, go_on = asyncio.Event(), asyncio.Event()
unblock = threading.Event()


class Config(PluginConfig):
    does: str = ""


class Panic(BaseException):
    """What is no Exception."""


def way(config: Config, job: Job | None) -> str:
    return config.does or (job.url.rpartition("/")[2] if job else "")


def in_thread(config: Config, job: Job | None = None) -> Any:
    match way(config, job):
        case "fail":
            raise RuntimeError("again")
        case "fail the job":
            raise JobFailed(Cause.AGE)
        case "refuse":
            raise Refused("not today")
        case "exit":
            raise SystemExit(1)
        case "quit":
            exit(4)  # noqa: PLR1722 (which closes the standard input, too)
        case "panic":
            raise Panic
        case "be cancelled":
            raise asyncio.CancelledError
        case "block":
            unblock.wait(60)
        case "return a refusal":
            return Refused("not today")
        case "return a text":
            return "x.mp4"
        case "return no text":
            return ""
        case "tell the thread":
            return threading.current_thread().name
    return None


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task for a plugin."""
    return asyncio.create_task(work)


async def in_loop(config: Config, job: Job | None = None) -> Any:
    what, _, value = way(config, job).partition("=")
    match what:
        case "hang":
            begun.set()
            await asyncio.Event().wait()
        case "swallow":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        case "linger":
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await go_on.wait()
        case "sleep":
            await asyncio.sleep(float(value))
            return [value]
        case "time out":
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        case "fail after":
            await asyncio.sleep(float(value))
            raise RuntimeError("again")
        case "tell the job" if job:
            await asyncio.sleep(0)
            return job.id
    return in_thread(config, job)
