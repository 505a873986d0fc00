"""The archive: remembers what the bot posted, so that it can be found by words and by
meaning. Only those who can read a post find it."""

from collections.abc import Callable
from functools import partial

from discord.ext import commands

from bossbot import App, BossBot, Finding, Job, Part, Subcommand, hookimpl

from . import cog
from ._meaning import findings
from .command_line import subcommand
from .config import Config, GuildConfig
from .store import SQLiteArchive, own_archive

__all__ = ["Config", "GuildConfig"]


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    return {"archive": partial(SQLiteArchive, config=config)}


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
        """
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [cog.Archive(bot)]


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [subcommand()]


@hookimpl
def check_machine(config: Config) -> list[Finding]:
    return findings(config.meaning)


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    if archive := own_archive(app):
        await archive.note(job)


@hookimpl
async def forget_downloads(guild_id: int | None, user_id: int | None, app: App) -> None:
    if archive := own_archive(app):
        await archive.forget(guild_id, user_id)
