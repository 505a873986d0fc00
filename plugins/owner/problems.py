"""Sends the owner a message, at most once a day for each kind, about failures that only
the owner can fix."""

import asyncio
import contextlib
import platform
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, NamedTuple

from bossbot_plugins._discord import tell_once_a_day
from bossbot_plugins._health import disk
from bossbot_plugins._reports import ID, clean
from loguru import logger

from bossbot import (
    App,
    Cause,
    Job,
    JobFailed,
    Status,
    escape,
    hookimpl,
    in_thread,
)

OUTDATED_IN_A_ROW = 3  # of one platform
LOOK_S = 60.0  # between two looks at the disk
GATHER_S = 1.0  # what belongs to a failure is logged with it
MAX_WAITING = 20
# Lines of the log that are about a plugin.
PLUGIN = re.compile(r"plugin (\w+) failed|(?:of )?plugin (\w+) is switched off")
BLOCKED = re.compile(r"the event loop is blocked by plugin (\w+)")
NOT_OURS = re.compile(r"discord[.\w]*: ")  # its connection, which it restores
REPORT_ID = re.compile(rf"error ({ID.pattern}) in ")


class Problem(NamedTuple):
    """What the owner should know."""

    kind: str
    text: str
    id: str = ""  # of a job or an error
    lines: tuple[str, ...] = ()  # not cleaned yet


_waiting: asyncio.Queue[Problem] | None = None  # while somebody listens
_machine = ""  # a sentence with its name, where the bot runs on several
_noted: dict[str, date] = {}  # the day of the last problem of each kind
_outdated: Counter[str] = Counter()  # in a row, by platform
UPDATE = "Update the bot (docs/install.md), and start it again."


@hookimpl(tryfirst=True)
async def run(app: App) -> None:
    global _waiting, _machine
    _machine = f" The machine: {platform.node()}." if app.queue.shared else ""
    _waiting = asyncio.Queue(MAX_WAITING)
    _noted.clear()
    with heard(asyncio.get_running_loop()):
        note_plugins_that_are_off(app)
        looking = asyncio.create_task(look_at_disk(app))
        try:
            while True:
                kind, text, name, lines = await _waiting.get()
                await asyncio.sleep(GATHER_S)
                with logger.catch(level="WARNING", message="the owner got no message"):
                    key = f"problem:{kind}"
                    shown = await in_thread(partial(list, map(clean, lines)))
                    await tell_once_a_day(app, key, text, name, shown)
        finally:
            looking.cancel()
            _waiting = None


def note(problem: Problem) -> None:
    """Send the owner a message, unless there was one today, or too many are waiting."""
    today = datetime.now(UTC).date()
    if _waiting and _noted.get(problem.kind) != today:
        with contextlib.suppress(asyncio.QueueFull):
            _waiting.put_nowait(problem)
            _noted[problem.kind] = today


@contextlib.contextmanager
def heard(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """While it lasts, errors in the log are noted, whatever thread they come from."""

    def hear(message: Any) -> None:
        if problem := problem_of(message.record):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(note, problem)

    sink = logger.add(hear, level="ERROR", format="")
    try:
        yield
    finally:
        logger.remove(sink)


def problem_of(record: Any) -> Problem | None:
    """The problem that an error in the log shows, if any."""
    said, extra = str(record["message"]), record["extra"]
    if NOT_OURS.match(said):
        return None
    lines = tuple(str(extra.get("text") or said).splitlines()[-12:])
    named = PLUGIN.search(said) or BLOCKED.search(said)
    if named:
        stem = next(filter(None, named.groups()))
        text = (
            f"The plugin `{stem}` is broken. If it is yours, correct it; otherwise "
            "update the bot (docs/install.md)."
        )
        return Problem("plugin", text, "", lines)
    found = REPORT_ID.search(said)
    name = str(extra.get("job") or (found[1] if found else ""))
    text = (
        "There is an error in the log. If it does not say what to do, update the bot "
        "(docs/install.md), and start it again." + _machine
    )
    return Problem("internal", text, name, lines)


def note_plugins_that_are_off(app: App) -> None:
    wanted = app.settings.disabled_plugins
    off = [p for p in app.plugins.all.values() if p.off and p.stem not in wanted]
    if off:
        names = ", ".join(f"`{plugin.stem}`" for plugin in off)
        lines = tuple(f"{plugin.stem}: {plugin.off}" for plugin in off)
        text = (
            f"These plugins are broken, so they are off: {names}. "
            "`python bossbot.py plugins` shows why."
        )
        note(Problem("plugin", text, "", lines))


async def look_at_disk(app: App) -> None:
    while True:
        with logger.catch(message="the disk cannot be checked"):
            if wrong := await disk(app):
                text = (
                    f"There is no room for links: {wrong} in {app.settings.data_dir}. "
                    "Links are refused until there is room (docs/troubleshooting.md)."
                    + _machine
                )
                note(Problem("disk", text))
        await asyncio.sleep(LOOK_S)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    where = job.platform or f"{job.engine}, other sites"
    if job.status is Status.COMPLETED:
        _outdated.pop(where, None)
    if job.status is not Status.FAILED:
        return
    lines = (job.detail,)
    if job.cause is Cause.INTERNAL:
        text = f"A link failed because of a bug in the bot. {UPDATE}"
        note(Problem("internal", text, job.id, lines))
    elif job.cause is Cause.DISK_FULL:
        text = "A link failed because the disk is full. Make room, or set another data_dir."
        note(Problem("disk", text, job.id))
    elif job.cause in (Cause.LOGIN, Cause.AGE) and job.platform:
        # Other sites than our platforms have no setting for a login.
        text = (
            f"A link to {where} failed: the site requires a login, or the bot's login no "
            "longer works. Set cookies for it (docs/logins.md), then try "
            "`python bossbot.py check --login`."
        )
        note(Problem(f"login:{where}", text, job.id, lines))
    elif job.cause is Cause.ENGINE_OUTDATED:
        _outdated[where] += 1
        if _outdated[where] >= OUTDATED_IN_A_ROW:
            text = (
                f"{_outdated[where]} links in a row failed, probably because the site "
                f"has changed: {escape(where)}.{await engine_of(app, job)} {UPDATE}"
            )
            note(Problem(f"engine:{where}", text, job.id, lines))


async def engine_of(app: App, job: Job) -> str:
    """ " The bot has yt-dlp 2026.01.02.", or "" if its version is not known."""
    with contextlib.suppress(JobFailed, OSError, KeyError):
        version, days = (await app.runner.versions())[job.engine]
        old = "" if days is None else f", which is {days} days old"
        return f" The bot has {escape(job.engine)} {escape(version)}{old}."
    return ""
