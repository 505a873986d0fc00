"""The status message of a job: edited as the download goes on."""

import asyncio
import contextlib
import time

import aiohttp
import discord
from pydantic import Field

from bossbot import (
    TERMINAL_STATUSES,
    BossBot,
    Job,
    PluginConfig,
    Progress,
    Status,
    escape,
    format_size,
    format_time,
    hookimpl,
)


class Config(PluginConfig):
    """[plugins.progress] in config.toml."""

    # No limit is published; one edit in 2.5 to 5 s per message is civil.
    edit_interval_s: float = Field(2.5, ge=1, description="between two edits")


class Tracker:
    """The status messages of the running jobs: what to show, and one editor each."""

    def __init__(self) -> None:
        self.bot: BossBot | None = None
        self.jobs: dict[str, Job] = {}
        self.progress: dict[str, Progress] = {}
        self.shown: dict[str, str] = {}
        self.editors: dict[str, asyncio.Task[None]] = {}

    def show(self, job_id: str, interval_s: float) -> None:
        """See to it that the message shows the newest state before long."""
        if job_id not in self.editors:
            task = asyncio.create_task(self._edit(job_id, interval_s))
            self.editors[job_id] = task
            task.add_done_callback(lambda _: self.editors.pop(job_id, None))

    async def _edit(self, job_id: str, interval_s: float) -> None:
        """Edit until the message shows the newest state, not more often than allowed."""
        while job := self.jobs.get(job_id):
            text = render(job, self.progress.get(job_id))
            if text == self.shown.get(job_id) or not job.status_message_id:
                return
            started_s = time.monotonic()
            await self._write(job, text)
            self.shown[job_id] = text
            if job.status in TERMINAL_STATUSES:
                for known in (self.jobs, self.progress, self.shown):
                    known.pop(job_id, None)
                return
            spent_s = time.monotonic() - started_s
            await asyncio.sleep(max(interval_s - spent_s, 0))

    async def _write(self, job: Job, text: str) -> None:
        if self.bot is None:
            return
        channel = self.bot.get_partial_messageable(job.channel_id)
        message = channel.get_partial_message(job.status_message_id)
        # The message is a courtesy: that it cannot be edited fails no job.
        with contextlib.suppress(
            OSError, aiohttp.ClientError, discord.DiscordException
        ):
            try:
                await message.edit(content=text)
            except discord.NotFound:
                if job.status is Status.FAILED:
                    await channel.send(text)


tracker = Tracker()


@hookimpl
async def bot_started(bot: BossBot) -> None:
    tracker.bot = bot


@hookimpl
async def job_changed(job: Job, config: Config) -> None:
    known = tracker.jobs.get(job.id)
    if known and not job.status_message_id:
        job.status_message_id = known.status_message_id
    elif known and not known.status_message_id:  # the answer to the request says it
        tracker.shown[job.id] = render(job, None)
    tracker.jobs[job.id] = job
    tracker.show(job.id, config.edit_interval_s)


@hookimpl
async def job_progressed(job: Job, progress: Progress, config: Config) -> None:
    if job.id in tracker.jobs:
        tracker.progress[job.id] = progress
        tracker.show(job.id, config.edit_interval_s)


def render(job: Job, progress: Progress | None) -> str:
    """The status message's text."""
    tag = f" · `{job.id}`"
    count = f"{job.file_count} file{'s' * (job.file_count != 1)}"
    match job.status:
        case Status.QUEUED:
            return f"Download queued{tag}"
        case Status.DOWNLOADING if progress:
            return f"Downloading{tag}\n{render_progress(progress)}"
        case Status.DOWNLOADING:
            return f"Download started{tag}"
        case Status.PROCESSING:
            return f"Making it fit{tag}"
        case Status.UPLOADING:
            return f"Uploading {count}{tag}"
        case Status.COMPLETED:
            took = format_time(job.finished_at - job.created_at)
            return f"Done in {took}: {count}{tag}"
        case Status.CANCELLED:
            return f"Cancelled{tag}"
        case Status.FAILED:
            return f"**Download failed** ({job.cause}){tag}\n{job.error}"


def render_progress(progress: Progress) -> str:
    """File name, bar, percent, speed and time left, as far as they are known."""
    facts = []
    if progress.total_bytes:
        share = min(progress.done_bytes / progress.total_bytes, 1)
        filled = round(share * 16)
        facts.append(f"`{'█' * filled}{'░' * (16 - filled)}` {share:.0%}")
        total = format_size(progress.total_bytes)
        facts.append(f"{format_size(progress.done_bytes)} of {total}")
    else:
        facts.append(format_size(progress.done_bytes))
    if progress.speed_bytes_s:
        facts.append(f"{format_size(progress.speed_bytes_s)}/s")
    if progress.eta_s is not None:
        facts.append(f"{format_time(progress.eta_s)} left")
    of = f" ({progress.item} of {progress.items})" if progress.items else ""
    return f"{escape(progress.name, 100)}{of}\n{' · '.join(facts)}"
