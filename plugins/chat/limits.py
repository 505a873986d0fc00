"""Limits how often members may use each command: a number of times a minute, with a
pause between two uses. Downloads are counted by links, from commands and clicks
alike."""

import math
import sqlite3
from typing import Any, NamedTuple, Self

import discord
from pydantic import Field

from bossbot import (
    Action,
    App,
    Job,
    PluginConfig,
    Refused,
    Settings,
    _,
    format_time,
    hookimpl,
    ngettext,
    now,
)

# What is counted together, by the names of actions; others have no limit.
LINES = {
    "download": "download",
    "queue list": "queue_list",
    "queue clear": "queue_clear",
    "queue cancel": "queue_change",
    "queue retry": "queue_change",
    "queue move": "queue_change",
    "settings view": "settings_view",
    "settings update": "settings_update",
    "search": "search",
    "archive status": "search",
    "archive forget": "search",
    "ask": "ask",
    "stats": "stats",
    "help": "help",
    "ping": "help",
    "about": "help",
    "privacy show": "privacy",
    "privacy forget": "privacy",
    "privacy stats": "privacy",
    "queue purge": "privacy",
}
MINUTE_S = 60.0
DAY_S = 86400
MAX_TOLD = 1000  # refused requests that are remembered
AUTO = "auto "  # before the links that no command asked for: no cooldown follows them


def rate(default: int, what: str) -> Any:
    return Field(default, ge=0, le=1000, description=f"{what} a minute; 0: no limit")


def cooldown(default: int, what: str) -> Any:
    return Field(
        default, ge=0, le=DAY_S, description=f"pause between two uses of {what}"
    )


class Config(PluginConfig):
    """[plugins.limits] in config.toml; of each member in each server."""

    download_per_minute: int = rate(5, "links")
    download_cooldown_s: int = cooldown(10, "download commands")
    queue_list_per_minute: int = rate(10, "/queue list")
    queue_list_cooldown_s: int = cooldown(5, "/queue list")
    queue_clear_per_minute: int = rate(2, "/queue clear")
    queue_clear_cooldown_s: int = cooldown(30, "/queue clear")
    queue_change_per_minute: int = rate(10, "/queue cancel, retry and move")
    queue_change_cooldown_s: int = cooldown(5, "/queue cancel, retry and move")
    settings_view_per_minute: int = rate(10, "/settings view")
    settings_view_cooldown_s: int = cooldown(5, "/settings view")
    settings_update_per_minute: int = rate(5, "/settings update")
    settings_update_cooldown_s: int = cooldown(15, "/settings update")
    search_per_minute: int = rate(15, "/search")
    search_cooldown_s: int = cooldown(1, "/search")
    ask_per_minute: int = rate(5, "/ask")
    ask_cooldown_s: int = cooldown(5, "/ask")
    stats_per_minute: int = rate(10, "/stats")
    stats_cooldown_s: int = cooldown(5, "/stats")
    help_per_minute: int = rate(10, "/help, /ping and /about")
    help_cooldown_s: int = cooldown(5, "/help, /ping and /about")
    privacy_per_minute: int = rate(2, "/privacy and /queue purge")
    privacy_cooldown_s: int = cooldown(30, "/privacy and /queue purge")
    guilds_may_loosen: bool = Field(
        True,
        description="false: a server may only make the limits of downloads stricter",
    )


class GuildConfig(PluginConfig):
    """[limits] of a server."""

    rate_per_minute: int | None = Field(
        None, ge=0, le=1000, description="links per member and minute; 0: no limit"
    )
    cooldown_s: int | None = Field(
        None, ge=0, le=DAY_S, description="pause between two requests of a member"
    )

    def within(self, config: Any, settings: Settings) -> Self:
        """With the owner's values where the server has none."""
        rate, pause_s = config.download_per_minute, config.download_cooldown_s
        mine = rate if self.rate_per_minute is None else self.rate_per_minute
        my_pause_s = pause_s if self.cooldown_s is None else self.cooldown_s
        if not config.guilds_may_loosen:
            mine = min((n for n in (mine, rate) if n), default=0)
            my_pause_s = max(my_pause_s, pause_s)
        values = {"rate_per_minute": mine, "cooldown_s": my_pause_s}
        return self.model_copy(update=values)


class Limit(NamedTuple):
    """How often one member may do something in one server."""

    line: str
    guild_id: int
    user_id: int
    per_minute: int  # 0: any number
    cooldown_s: float


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        CREATE TABLE limits (
            line TEXT NOT NULL, guild_id INTEGER NOT NULL, user_id INTEGER NOT NULL,
            at_s REAL NOT NULL,
            unit TEXT NOT NULL,  -- the id of the command, and for a link its number
            until_s REAL NOT NULL  -- then it counts no more
        );
        CREATE INDEX limits_by_member ON limits (line, guild_id, user_id, at_s);
        CREATE INDEX limits_by_unit ON limits (unit);
        CREATE INDEX limits_by_end ON limits (until_s);
        CREATE INDEX limits_by_time ON limits (at_s);
        """,
        "CREATE INDEX limits_by_user ON limits (user_id)",  # to forget a member
    ]


OLD = "DELETE FROM limits WHERE until_s <= ? OR at_s > ?"
USED = (
    "SELECT at_s, unit FROM limits WHERE line = ? AND guild_id = ? AND user_id = ? "
    "ORDER BY at_s"
)

# Last, so that only what nothing else has refused is counted.


@hookimpl(trylast=True)
async def check_action(
    action: Action, config: Config, guild: GuildConfig, app: App
) -> None:
    line = LINES.get(action.name)
    if action.dry or action.owner or not line:
        return
    where = (line, action.guild_id, action.user.id)
    if line == "download":  # its links are counted one by one
        limit = Limit(*where, guild.rate_per_minute or 0, guild.cooldown_s or 0)
        await use(app, limit, action.request, count=False)
        return
    values = (
        getattr(config, f"{line}_{what}") for what in ("per_minute", "cooldown_s")
    )
    await use(app, Limit(*where, *values), action.request)


@hookimpl(trylast=True)
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    if await app.bot.is_owner(discord.Object(job.user_id)):  # type: ignore[arg-type]
        return
    per_minute, cooldown_s = guild.rate_per_minute or 0, guild.cooldown_s or 0
    if job.options.get("auto"):  # nobody was in a hurry
        cooldown_s = 0
    limit = Limit("download", job.guild_id, job.user_id, per_minute, cooldown_s)
    await use(app, limit, unit_of(job))


@hookimpl
async def action_refused(action: Action, app: App) -> None:
    await app.database.all("DELETE FROM limits WHERE unit = ?", action.request)


@hookimpl
async def job_refused(job: Job, app: App) -> None:
    await app.database.all("DELETE FROM limits WHERE unit = ?", unit_of(job))


async def use(app: App, limit: Limit, unit: str, count: bool = True) -> None:
    """Count one use, unless it would be over the limit: then Refused. What is counted
    already passes."""
    if not limit.per_minute and not limit.cooldown_s:
        return
    at_s = now()

    # In a transaction, so that two at once cannot both take the last place.
    def take(database: sqlite3.Connection) -> tuple[float, float]:
        # What a clock that was wrong has left lies in the future.
        database.execute(OLD, (at_s, at_s))
        rows = database.execute(USED, limit[:3])
        used = {row["unit"]: row["at_s"] for row in rows}
        if unit in used:
            return 0, 0
        free = free_at(limit, unit, used)
        if count and max(free) <= at_s:
            until_s = at_s + max(MINUTE_S, limit.cooldown_s)
            values = (*limit[:3], at_s, unit, until_s)
            database.execute("INSERT INTO limits VALUES (?, ?, ?, ?, ?, ?)", values)
        return free

    rate_free_s, free_s = await app.database.run(take)
    if max(rate_free_s, free_s) > at_s:
        raise Refused(told(limit, unit, rate_free_s - at_s, free_s - at_s))


def free_at(limit: Limit, unit: str, used: dict[str, float]) -> tuple[float, float]:
    """From when the rate and the cooldown allow another use, by the earlier ones, the
    oldest first. The cooldown does not part the links of one command."""
    times = list(used.values())
    rate_free_s = free_s = 0.0
    if limit.per_minute and len(times) >= limit.per_minute:
        rate_free_s = times[-limit.per_minute] + MINUTE_S
    others = [
        at_s
        for one, at_s in used.items()
        if command_of(one) != command_of(unit) and not one.startswith(AUTO)
    ]
    if limit.cooldown_s and others:
        free_s = others[-1] + limit.cooldown_s
    return rate_free_s, free_s


def unit_of(job: Job) -> str:
    """What a link is counted as."""
    return f"{AUTO if job.options.get('auto') else ''}{job.request_key}"


def command_of(unit: str) -> str:
    """The id of the command that a unit is of."""
    return unit.partition(":")[0]


_told: dict[str, str] = {}  # by command: all links of one are refused in the same words


def told(limit: Limit, unit: str, rate_wait_s: float, cooldown_wait_s: float) -> str:
    """The sentence for the member."""
    command, count = command_of(unit), limit.per_minute
    if command not in _told:
        if rate_wait_s <= 0:
            text = _("You are going too fast. Try again in {wait}.")
        elif limit.line == "download":
            text = ngettext(
                "You may ask for {count} link a minute. Try again in {wait}.",
                "You may ask for {count} links a minute. Try again in {wait}.",
                count,
            )
        else:
            text = ngettext(
                "You may do that {count} time a minute. Try again in {wait}.",
                "You may do that {count} times a minute. Try again in {wait}.",
                count,
            )
        seconds = math.ceil(max(rate_wait_s, cooldown_wait_s))
        shown = format_time(seconds) if seconds > 2 else f"{seconds} s"
        _told[command] = text.format(count=count, wait=shown)
        for old in list(_told)[:-MAX_TOLD]:
            del _told[old]
    return _told[command]
