"""Tells the bot's owner, once a day per site, that a job failed for want of a login."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import discord
from loguru import logger

from bossbot import BossBot, Cause, Job, Status, escape, hookimpl

_bots: list[BossBot] = []
_turn = asyncio.Lock()  # two jobs that fail at once give one notice


@hookimpl
async def bot_started(bot: BossBot) -> None:
    _bots[:] = [bot]


@hookimpl
async def job_changed(job: Job) -> None:
    # Of a site that is no platform of ours no login can be set.
    wanted = job.platform and job.cause in (Cause.LOGIN, Cause.AGE)
    if job.status is not Status.FAILED or not wanted or not _bots:
        return
    bot, site = _bots[0], job.platform
    key, today = f"login_notice:{site}", datetime.now(UTC).date().isoformat()
    async with _turn:
        if await bot.pipeline.db.fact(key) == today:
            return
        await bot.pipeline.db.fact(key, today)
    text = (
        f"A link to {site} failed: the site wants a login, or the one it has is dead. "
        f"Set cookies for it (README, Logins), then try `python bossbot.py check "
        f"--login`. The site's words: {escape(job.detail, 500)}"
    )
    try:
        application = await bot.application_info()
        team = application.team
        owner_id = team.owner_id if team and team.owner_id else application.owner.id
        owner = await bot.fetch_user(owner_id)
        await owner.send(text)
    except (OSError, aiohttp.ClientError, discord.DiscordException) as error:
        logger.warning("the owner could not be told about {}: {}", site, error)
