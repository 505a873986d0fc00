"""Writes down, in the data folder, what happens to the jobs and the bot."""

from bossbot import App, Job, Progress, Status, hookimpl


def note(app: App, line: str) -> None:
    with (app.settings.data_dir / "seen").open("a") as file:
        print(line, file=file)


@hookimpl
async def job_changed(job: Job, previous: Status | None, app: App) -> None:
    note(app, f"{previous} -> {job.status}")


@hookimpl
async def job_progressed(job: Job, progress: Progress, app: App) -> None:
    note(app, f"progress {progress.name}")


@hookimpl
async def run(app: App) -> None:
    await app.bot.wait_until_ready()
    note(app, "started")
    try:
        await app.bot.wait_for("never")
    finally:
        note(app, "stopping")
