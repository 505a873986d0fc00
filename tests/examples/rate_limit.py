"""Limits how many links a member may ask for in a minute."""

from pydantic import Field

from bossbot import App, Job, PluginConfig, Refused, hookimpl, now


class GuildConfig(PluginConfig):
    per_minute: int = Field(5, ge=0, description="links of one member; 0: no limit")


@hookimpl
def register_tables() -> list[str]:
    return ["CREATE TABLE rate_limit (guild_id INTEGER, user_id INTEGER, at_s REAL)"]


@hookimpl
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    if not guild.per_minute:
        return
    member, at_s = (job.guild_id, job.user_id), now()
    old = "DELETE FROM rate_limit WHERE at_s NOT BETWEEN ? AND ?"
    await app.database.all(old, at_s - 60, at_s)
    # One statement counts and adds, so that two links at once cannot both slip in.
    add = """INSERT INTO rate_limit SELECT ?, ?, ? WHERE ? > (SELECT count(*)
        FROM rate_limit WHERE guild_id = ? AND user_id = ?) RETURNING at_s"""
    if not await app.database.one(add, *member, at_s, guild.per_minute, *member):
        raise Refused(f"The limit is {guild.per_minute} links a minute. Wait a little.")
