"""Reports to systemd when the bot is up, that it is alive, and when it stops."""

import asyncio
import contextlib
import os
import socket

from bossbot import App, hookimpl


def notify(state: str) -> None:
    """Send a state to systemd; harmless where there is none. See sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with (
            contextlib.suppress(OSError),  # nobody listens any more
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            sender.sendto(state.encode(), address.replace("@", "\0", 1))


def feed_every_s() -> float | None:
    """Half of the time after which systemd's watchdog bites; None if it is not ours."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    return int(microseconds) / 2e6 if ours and microseconds.isdecimal() else None


@hookimpl(trylast=True)
async def run(app: App) -> None:
    """Runs on the event loop, so that a loop that is stuck feeds no watchdog."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return
    notify("READY=1")  # the queue is up; Discord may be out of reach
    every_s = feed_every_s()
    while not app.stopping.is_set():
        notify("WATCHDOG=1")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.stopping.wait(), every_s)
    notify("STOPPING=1")
    while every_s:  # uploads end, which takes a while
        notify("WATCHDOG=1")
        await asyncio.sleep(every_s)
