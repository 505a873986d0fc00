"""``run``: connect to Discord and work until stopped."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

from loguru import logger

from bossbot import App, StartError, Subcommand, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("run", "connect to Discord; the default", connect)]


async def connect(app: App, args: argparse.Namespace) -> int:
    """Connect and stay until stopped; returns the exit code.

    Raises:
        StartError: Discord or this machine does not let the bot go on.
    """
    loop, work = asyncio.get_running_loop(), asyncio.current_task()
    times = 0

    def stop() -> None:
        logger.info("stopping")
        app.stopping.set()
        if work:
            work.cancel()

    def asked(*_: Any) -> None:  # not by the loop, which a plugin may block
        nonlocal times
        times += 1
        if times > 1:
            os._exit(1)
        loop.call_soon_threadsafe(stop)
        with contextlib.suppress(AttributeError, OSError):  # it may be closed
            os.write(sys.stderr.fileno(), b"once more to stop at once\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    try:
        await app.start()
        await app.client.run()
    except asyncio.CancelledError:
        if not (times and work):
            raise
        work.uncancel()  # what stops the app is not cancelled
    except OSError as error:
        data = app.settings.data_dir
        raise StartError(
            f"{data} cannot be used: {error}. The bot must be able to write there."
        ) from error
    return 0
