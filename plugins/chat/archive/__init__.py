"""The archive: remembers the bot's posts, so that they can be found by words and by
meaning. Only members who can read a post find it."""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any

from bossbot import App, BossBot, Finding, Job, Part, Subcommand, hookimpl

from .command_line import subcommand
from .config import Config, GuildConfig

__all__ = ["Config", "GuildConfig"]

# The rest is imported where it is used: `python bossbot.py --help` loads this file, and
# should not have to wait for discord.py.


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    def archive(app: App) -> Part:
        from .store import SQLiteArchive

        return SQLiteArchive(app, config=config)

    return {"archive": archive}


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- What is to be forgotten, until it is: a server (-1 for all) and a member (0
        -- for everybody).
        CREATE TABLE archive_wishes (
            guild_id INTEGER NOT NULL, member INTEGER NOT NULL,
            PRIMARY KEY (guild_id, member)
        );
        """,
        """
        -- Posts that are forgotten, whose messages stay: a new file leaves them out.
        CREATE TABLE archive_forgotten (job_id TEXT PRIMARY KEY);
        """,
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    from . import cog

    return [cog.Archive(bot)]


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [subcommand()]


@hookimpl
def check_machine(config: Config) -> list[Finding]:
    from ._meaning import findings

    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute("CREATE VIRTUAL TABLE words USING fts5(word)")
    except sqlite3.OperationalError:
        return [
            Finding(
                "FTS5 of SQLite is missing",
                "posts cannot be searched",
                "Use a Python whose SQLite has it.",
            )
        ]
    return findings(config.meaning)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    from .store import own_archive

    if archive := own_archive(app):
        await archive.note(job)


@hookimpl
async def forget_downloads(guild_id: int | None, user_id: int | None, app: App) -> None:
    from .store import own_archive

    if archive := own_archive(app):
        await archive.forget(guild_id, user_id)
