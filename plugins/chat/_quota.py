"""How much of its quota a server has used: the tables are those of the plugin quota."""

import json
import sqlite3
from typing import Any, NamedTuple

from bossbot import App, Job, _, format_size, now

DAY_S = 86400


class Held(NamedTuple):
    """What a job has of a quota, in bytes."""

    day: int  # since 1970, by UTC
    posted: int = 0
    reserved: int = 0
    claim_number: int = 0
    files: dict[str, int] = {}  # noqa: RUF012 - sizes by name
    known: bool = False  # whether it was there already


def today() -> int:
    return int(now() // DAY_S)


def holder_of(job: Job) -> int:
    """Whose quota it is: the server's, or the direct message's, which names no member."""
    return job.guild_id or -job.channel_id


async def used(app: App, holder: int) -> tuple[int, int]:
    """How many bytes were posted today, and how many are reserved."""
    row = await app.database.one(
        "SELECT posted, reserved FROM quota_days WHERE holder = ? AND day = ?",
        *(holder, today()),
    )
    return (row["posted"], row["reserved"]) if row else (0, 0)


async def told(app: App, guild_id: int) -> str:
    """How much of today's quota a server has used; "" without the plugin. Direct
    messages have none together."""
    plugin = app.plugins.all.get("quota")
    if plugin is None or plugin.off or not guild_id:
        return ""
    table = app.guilds.tables(guild_id).get("quota", {})
    guild: Any = plugin.guild_config.model_validate(table)
    limit = guild.within(plugin.config, app.settings).daily_quota
    posted, reserved = await used(app, guild_id)
    shown = {"posted": format_size(posted), "quota": format_size(limit)}
    text = _("{posted} of {quota}") if limit else _("{posted}, no limit")
    if reserved:
        shown["reserved"] = format_size(reserved)
        text += "\n" + _("{reserved} reserved for what is running")
    return text.format(**shown)


def most_bytes(app: App, job: Job) -> int:
    """The largest file that a job's server wants; the owner's without the plugin."""
    plugin = app.plugins.all.get("quota")
    if plugin is None or plugin.off:
        return int(app.settings.max_file_size)
    guild: Any = app.plugins.guild_config(plugin, job)
    return int(guild.max_file_size)


def held(database: sqlite3.Connection, job: Job, limit: int) -> tuple[Held, int | None]:
    """What a job holds, and what of the limit the others leave to it today; None without
    a limit."""
    day = today()
    rows = database.execute(
        "SELECT day, posted, reserved, claim_number, files FROM quota_jobs WHERE id = ?",
        (job.id,),
    ).fetchall()
    own = Held(day, files={})
    mine = 0
    for *numbers, files in rows:
        own = Held(*numbers)._replace(files=json.loads(files), known=True)
        mine = own.posted + own.reserved if own.day == day else 0
    own = own._replace(claim_number=max(own.claim_number, job.claim_number))
    sums = database.execute(
        "SELECT posted + reserved FROM quota_days WHERE holder = ? AND day = ?",
        (holder_of(job), day),
    ).fetchall()
    others = sums[0][0] - mine if sums else 0
    return own, limit - others if limit else None
