"""Chooses the language of the bot's answers: that of the server."""

from typing import Literal, get_args

from bossbot_plugins._catalogues import closest, load
from pydantic import Field

import bossbot
from bossbot import Action, App, Job, PluginConfig, hookimpl

Language = Literal["auto", "en", "de", "es", "fr", "ja", "pt-BR"]
LANGUAGES = get_args(Language)[1:]

bossbot.catalogues.update(load())


class GuildConfig(PluginConfig):
    """[language] of a server."""

    language: Language = Field(
        "auto", description="language of the bot's answers; auto: the server's own"
    )


@hookimpl(tryfirst=True)  # what refuses speaks it, too
async def check_action(action: Action, guild: GuildConfig, app: App) -> None:
    """Sets the language for all that follows in this command or click."""
    bossbot.language.set(language_of(app, action.guild_id, guild.language))


@hookimpl(tryfirst=True)
async def check_job(job: Job, guild: GuildConfig, app: App) -> None:
    """Gives the job its language, in which its messages are written."""
    chosen = language_of(app, job.guild_id, guild.language)
    bossbot.language.set(chosen)
    job.options["language"] = chosen


def language_of(app: App, guild_id: int, setting: Language) -> str:
    """The language of a server, by its setting."""
    if setting != "auto":
        return setting
    guild = app.bot.get_guild(guild_id) if app.has_gateway else None
    return closest(str(guild.preferred_locale), LANGUAGES) if guild else "en"
