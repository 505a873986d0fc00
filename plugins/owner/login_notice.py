"""Sends the owner a message, once a day per site, when a job fails without a login."""

from bossbot_plugins._discord import tell_once_a_day

from bossbot import App, Cause, Job, Status, escape, hookimpl


@hookimpl
async def job_changed(job: Job, app: App) -> None:
    # A site that is no platform of ours has no place for a login.
    wanted = job.platform and job.cause in (Cause.LOGIN, Cause.AGE)
    if job.status is not Status.FAILED or not wanted:
        return
    site = job.platform
    text = (
        f"A link to {site} failed: the site wants a login, or the one it has is dead. "
        f"Set cookies for it (docs/logins.md), then try `python bossbot.py check "
        f"--login`. The site's words: {escape(job.detail, 500)}"
    )
    await tell_once_a_day(app, f"login_notice:{site}", text, job.id)
