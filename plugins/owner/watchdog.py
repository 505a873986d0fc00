"""Names in the log the plugin that blocks the event loop for over 5 s."""

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from loguru import logger

from bossbot import Settings, hookimpl

BLOCKED_S = 5


@hookimpl(tryfirst=True)  # the other plugins may block the loop from here on
def register_commands(settings: Settings) -> list[Any]:
    watch_loop(asyncio.get_running_loop(), settings.plugins_dir)
    return []


def watch_loop(loop: asyncio.AbstractEventLoop, plugins_dir: Path) -> None:
    """Log, from a thread, when the loop is blocked for long, and by which plugin."""
    main = threading.get_ident()

    def watch() -> None:
        while not loop.is_closed():
            alive = threading.Event()
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(alive.set)
            if not alive.wait(BLOCKED_S):
                frame = sys._current_frames().get(main)
                files = [f.f_code.co_filename for f, _ in traceback.walk_stack(frame)]
                culprit = next(
                    (f for f in files if f.startswith(str(plugins_dir))), "?"
                )
                logger.error(
                    "the event loop is blocked by plugin {}", Path(culprit).stem
                )
                alive.wait()
            time.sleep(1)

    threading.Thread(target=watch, name="loop watchdog", daemon=True).start()
