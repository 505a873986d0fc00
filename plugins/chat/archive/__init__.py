"""The archive: remembers what the bot posted, so that it can be found by words and by
meaning. Only those who can read a post find it."""

from collections.abc import Callable

from bossbot import App, Part, hookimpl

from .store import SQLiteArchive


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"archive": SQLiteArchive}
