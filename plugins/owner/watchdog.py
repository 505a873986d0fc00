"""Logs the name of a plugin that blocks the event loop for over 5 s."""

import asyncio
import contextlib
import sys
import threading
import time
from traceback import walk_stack

from loguru import logger

from bossbot import PLUGIN_PACKAGE, hookimpl

BLOCKED_S = 5


@hookimpl(tryfirst=True)  # the other plugins may block the loop from here on
async def run() -> None:
    ended = threading.Event()
    watch_loop(asyncio.get_running_loop(), ended)
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


def watch_loop(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    """Log, from a thread, when the loop is blocked for long, and by which plugin."""
    main = threading.get_ident()

    def watch() -> None:
        while not (loop.is_closed() or ended.is_set()):
            alive = threading.Event()
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(alive.set)
            if not alive.wait(BLOCKED_S):
                frame = sys._current_frames().get(main)
                names = (f.f_globals.get("__name__") for f, _ in walk_stack(frame))
                plugins = [n for n in names if str(n).startswith(f"{PLUGIN_PACKAGE}.")]
                culprit = str(plugins[0]).split(".")[1] if plugins else "?"
                logger.error("the event loop is blocked by plugin {}", culprit)
                alive.wait()
            time.sleep(1)

    threading.Thread(target=watch, name="loop watchdog", daemon=True).start()
