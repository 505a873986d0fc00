"""Checks that ask for the settings of the server."""

from pydantic import Field

from bossbot import PluginConfig, hookimpl


class GuildConfig(PluginConfig):
    per_minute: int = Field(5, ge=0)


@hookimpl
async def check_job(guild: GuildConfig) -> None: ...


@hookimpl
async def check_attempt(guild: GuildConfig) -> None: ...


@hookimpl
async def check_upload(guild: GuildConfig) -> None: ...
