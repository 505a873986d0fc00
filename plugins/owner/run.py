"""``run``: connect to Discord and work until stopped; ``gateway`` and ``worker``: only
one half of it, for a bot on several machines."""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
from functools import partial
from typing import Any

from loguru import logger

from bossbot import STOP_WITHIN_S, App, StartError, Subcommand, hookimpl

M_ARENA_MAX = -8  # malloc.h


@hookimpl
def register_subcommands() -> list[Subcommand]:
    halves = {
        "gateway": "only take commands; workers download and post",
        "worker": "only download and post, for a bot on another machine",
    }
    return [
        Subcommand("run", "connect to Discord; the default", connect),
        *(Subcommand(name, text, partial(half, name)) for name, text in halves.items()),
    ]


def check_queue(app: App) -> None:
    """Raises StartError for a queue that is off by a mistake: another one would take
    links in its place, which its own workers never see."""
    for plugin in app.plugins.all.values():
        meant = plugin.stem not in app.settings.disabled_plugins
        if plugin.off and meant and plugin.stem.endswith("_queue"):
            raise StartError(
                f"{plugin.stem} is off: {plugin.off}. Correct that, or name it in "
                "disabled_plugins."
            )


async def half(name: str, app: App, args: argparse.Namespace) -> int:
    """Be one half of a bot on several machines; see ``connect``."""
    check_queue(app)
    if not app.queue.shared:
        raise StartError(
            f"{name} needs a queue that several processes share. Set "
            "BOSS_BOT_PLUGINS__REDIS_QUEUE__URL in .env, or run without a command."
        )
    return await connect(app, args, name != "worker", name != "gateway")


async def connect(
    app: App, args: argparse.Namespace, gateway: bool = True, works: bool = True
) -> int:
    """Connect and stay until stopped; returns the exit code.

    Raises:
        StartError: Discord or this machine does not let the bot go on.
    """
    check_queue(app)
    loop, times = asyncio.get_running_loop(), 0
    deadline = threading.Timer(STOP_WITHIN_S, os._exit, [1])
    deadline.daemon = True

    async def work() -> None:
        # Each thread would keep memory for itself; elsewhere than with glibc none does.
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        await app.start(gateway=gateway, work=works)
        gc.freeze()  # these objects stay; to look through them takes a tenth of a second
        if gateway:
            await app.client.run()
        else:
            logger.info("working")
            await app.stopping.wait()

    def stop() -> None:
        logger.info("stopping")
        app.stopping.set()

    def asked(*_: Any) -> None:  # not by the loop, which a plugin may block
        nonlocal times
        times += 1
        if times > 1:
            os._exit(1)
        deadline.start()  # also for a loop that never comes to the stop
        loop.call_soon_threadsafe(stop)
        with contextlib.suppress(AttributeError, OSError):  # it may be closed
            os.write(
                sys.stderr.fileno(),
                b"a second Ctrl-C or signal stops the bot at once\n",
            )

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    working = asyncio.create_task(work())
    stopped = asyncio.create_task(app.stopping.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    for _ in range(3):  # until Python 3.12, wait_for() may lose a cancellation
        if not working.done():
            working.cancel()
            await asyncio.wait([working], timeout=1)
    stopped.cancel()
    deadline.cancel()
    ended = working.done() and not working.cancelled()
    error = working.exception() if ended else None
    if error is None or app.stopping.is_set():
        return 0
    if isinstance(error, OSError):
        data = app.settings.data_dir
        raise StartError(
            f"{data} cannot be used: {error}. The bot must be able to write there."
        ) from error
    raise error
