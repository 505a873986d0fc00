"""Sends the owner a message, once a day per site, when a job fails without a login."""

import asyncio
from datetime import UTC, datetime

from bossbot_plugins._discord import tell_owner

from bossbot import App, Cause, Job, Status, escape, hookimpl

_turn = asyncio.Lock()  # two jobs that fail at once cause one notice


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    # A site that is no platform of ours has no place for a login.
    wanted = job.platform and job.cause in (Cause.LOGIN, Cause.AGE)
    if job.status is not Status.FAILED or not wanted:
        return
    site = job.platform
    key, today = f"login_notice:{site}", datetime.now(UTC).date().isoformat()
    async with _turn:
        if await app.facts.get(key) == today:
            return
        await app.facts.set(key, today)
    text = (
        f"A link to {site} failed: the site wants a login, or the one it has is dead. "
        f"Set cookies for it (docs/logins.md), then try `python bossbot.py check "
        f"--login`. The site's words: {escape(job.detail, 500)}"
    )
    await tell_owner(app.bot, text)
