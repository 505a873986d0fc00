"""Loses the claims of all jobs when one is about to be posted."""

from bossbot import App, Job, hookimpl


@hookimpl
async def check_upload(job: Job, app: App) -> None:
    await app.database.all("UPDATE jobs SET claim_number = claim_number + 1")
