"""Health checks: whether the bot is alive, and ready for links."""

import asyncio
import json
import re
import shutil
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, NamedTuple

from bossbot import App, format_size, in_thread, one_line

ANSWER_S = 2.0  # for each check
FINE = "ok"
Check = Callable[[], Coroutine[Any, Any, str]]  # "" when all is well


class Page(NamedTuple):
    """The answer to a path."""

    body: bytes
    kind: str = "application/json"
    status: int = 200


def split_address(address: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:9642" or "[::1]:9642"; raises ValueError."""
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host[:1] + host[-1:] == "[]" else host
    good = bare and not re.search(r"[][/\s]", bare)
    if not (good and port.isdecimal() and port.isascii() and int(port) < 2**16):
        raise ValueError('expected an address and a port, such as "127.0.0.1:9642"')
    if ":" in bare and bare == host:
        raise ValueError('an IPv6 address needs brackets, such as "[::1]:9642"')
    return bare, int(port)


async def check_life(app: App) -> dict[str, str]:
    """The problems of vital parts, by name; FINE for none."""
    checks = {"database": app.database.health, "fork_server": app.runner.health}
    return {"loop": FINE, **await ask(checks)}


async def check_readiness(app: App) -> dict[str, str]:
    """The same, and whether links can be taken and posted."""
    checks: dict[str, Check] = {"disk": partial(disk, app), "queue": app.queue.health}
    if app.has_gateway:
        checks["gateway"] = app.client.health
    if app.works:
        checks["worker"] = app.worker.health
    return {**await check_life(app), **await ask(checks)}


async def ask(checks: Mapping[str, Check]) -> dict[str, str]:
    """The results of some checks."""

    async def one(check: Check) -> str:
        try:
            async with asyncio.timeout(ANSWER_S):
                return one_line(await check())[:200] or FINE
        except TimeoutError:
            return f"no answer within {ANSWER_S:g} s"
        except Exception as error:  # whatever it is, the part is not well
            return one_line(f"{type(error).__name__}: {error}")[:200]

    answers = await asyncio.gather(*map(one, checks.values()))
    return dict(zip(checks, answers, strict=True))


async def disk(app: App) -> str:
    """Whether the disk has as much free space as the settings of retention ask for."""
    retention = app.plugins.all.get("retention")
    wanted = int(getattr(retention and retention.config, "min_free_space", 0))
    try:
        usage = await in_thread(lambda: shutil.disk_usage(app.settings.data_dir))
    except OSError as error:  # it was pulled out
        return str(error.strerror)
    if usage.free and usage.free >= wanted:
        return ""
    return f"only {format_size(usage.free)} are free"


def as_page(found: Mapping[str, str]) -> Page:
    """The answer to a request: 200, or 503 with the problems."""
    failed = [name for name, says in found.items() if says != FINE]
    status = "failed" if failed else FINE
    body = json.dumps({"status": status, "failed": failed, "checks": found}) + "\n"
    return Page(body.encode(), status=503 if failed else 200)


def ask_from_outside(
    loop: asyncio.AbstractEventLoop, check: Coroutine[Any, Any, dict[str, str]]
) -> Page:
    """The same from a thread, also while the bot's loop is blocked; blocks."""
    try:
        asked = asyncio.run_coroutine_threadsafe(check, loop)
    except RuntimeError:  # it was closed just now
        check.close()
        return as_page({"loop": "it has ended"})
    try:
        return as_page(asked.result(2 * ANSWER_S))
    except TimeoutError:
        asked.cancel()
        return as_page({"loop": f"blocked for {2 * ANSWER_S:g} s"})
