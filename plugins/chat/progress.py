"""The status message of a job, which answers its request: written when the job is queued,
and edited until the job has ended."""

import asyncio
import contextlib

import aiohttp
import discord
from loguru import logger
from pydantic import Field

from bossbot import (
    TERMINAL_STATUSES,
    App,
    Job,
    PluginConfig,
    Progress,
    Status,
    escape,
    format_size,
    format_time,
    hookimpl,
)

MAX_CONTENT = 2000  # Discord, 2026-11: characters
MAX_FAILURES = 5  # of edits in turn, then that state is given up
UNTOLD = "jobs whose end is to be told"  # the fact: their ids


class Config(PluginConfig):
    """[plugins.progress] in config.toml."""

    # No limit is published; one edit in 2.5 to 5 s per message is civil.
    edit_interval_s: float = Field(2.5, ge=1, description="between two edits")


class Tracker:
    """The status messages of the jobs under way: what to show, and one editor each."""

    edit_timeout_s = 30.0

    def __init__(self) -> None:
        self.recalled = False  # whether the jobs of the last run are among these
        self.jobs: dict[str, Job] = {}
        self.messages: dict[str, int] = {}
        self.progress: dict[str, Progress] = {}
        self.shown: dict[str, str] = {}
        self.editors: dict[str, asyncio.Task[None]] = {}

    def show(self, app: App, job_id: str, interval_s: float) -> asyncio.Task[None]:
        """Make the message show the newest state before long."""
        task = self.editors.get(job_id)
        if task is None or task.done():
            task = asyncio.create_task(self._edit(app, job_id, interval_s))
            self.editors[job_id] = task
        return task

    async def recall(self, app: App) -> list[Job]:
        """The jobs whose messages the last run left unfinished."""
        left = []
        for job_id in (await app.facts.get(UNTOLD)).split():
            if job := await app.queue.get(job_id):
                left.append(self.jobs.setdefault(job_id, job))
                self.messages.setdefault(job_id, job.status_message_id)
        self.recalled = True
        await self.remember(app)
        return left

    async def remember(self, app: App) -> None:
        """Store whose messages are unfinished, for the next start."""
        if self.recalled:
            with logger.catch(message=f"not stored: {UNTOLD}", level="DEBUG"):
                await app.facts.set(UNTOLD, " ".join(self.jobs))

    async def _edit(self, app: App, job_id: str, interval_s: float) -> None:
        """Write until the message shows the newest state, not more often than allowed."""
        failures = 0
        while job := self.jobs.get(job_id):
            text = render(job, self.progress.get(job_id))
            ended = job.status in TERMINAL_STATUSES
            if text == self.shown.get(job_id):
                break
            last = failures == MAX_FAILURES
            if await self._write(app, job, text, last) or last:
                self.shown[job_id], failures = text, 0
            else:
                failures += 1
            if ended and not failures:
                for known in (
                    *(self.jobs, self.messages, self.progress, self.shown),
                    self.editors,
                ):
                    known.pop(job_id, None)
                await self.remember(app)
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(app.stopping.wait(), interval_s)

    async def _write(self, app: App, job: Job, text: str, last: bool) -> bool:
        """Send or edit the message; False when it is worth another try, if this is not
        the ``last``. A failure that cannot be shown there goes to the channel, or else
        to the member."""
        ways = [self._in_message]
        if job.status is Status.FAILED:
            ways += [_in_channel, _to_member]
        for way in ways:
            # The message is a courtesy: that it cannot be written fails no job.
            try:
                async with asyncio.timeout(self.edit_timeout_s):
                    await way(app, job, text)
                return True
            except discord.HTTPException as error:
                again = error.status >= 500 or error.status == 429
            except (discord.DiscordException, OSError, aiohttp.ClientError):
                again = True
            except RuntimeError:  # the bot has stopped, and its session with it
                if not app.stopping.is_set():
                    raise
                return True
            if again and not last:
                return False
        return True

    async def _in_message(self, app: App, job: Job, text: str) -> None:
        if message_id := self.messages.get(job.id):
            channel = app.bot.get_partial_messageable(job.channel_id)
            await channel.get_partial_message(message_id).edit(content=text)
            return
        message_id = await app.client.answer(job, text)
        self.messages[job.id] = message_id
        with logger.catch(message="a status message is forgotten"):
            await app.queue.set_status_message(job.id, message_id)


async def _in_channel(app: App, job: Job, text: str) -> None:
    await app.bot.get_partial_messageable(job.channel_id).send(text)


async def _to_member(app: App, job: Job, text: str) -> None:
    user = await app.bot.fetch_user(job.user_id)
    await user.send(text)


tracker = Tracker()


@hookimpl
async def run(app: App, config: Config) -> None:
    for job in await tracker.recall(app):
        if job.status in TERMINAL_STATUSES or not job.status_message_id:
            tracker.show(app, job.id, config.edit_interval_s)


@hookimpl(tryfirst=True)  # the member waits for this answer
async def job_changed(job: Job, app: App, config: Config) -> None:
    known = job.id in tracker.jobs
    tracker.jobs[job.id] = job
    if job.status_message_id:
        tracker.messages.setdefault(job.id, job.status_message_id)
    editor = tracker.show(app, job.id, config.edit_interval_s)
    if not known:
        await tracker.remember(app)
    if app.stopping.is_set():
        await editor  # the bot waits for this, not for the editor


@hookimpl
async def job_progressed(
    job: Job, progress: Progress, app: App, config: Config
) -> None:
    if job.id in tracker.jobs:
        tracker.progress[job.id] = progress
        tracker.show(app, job.id, config.edit_interval_s)


def render(job: Job, progress: Progress | None) -> str:
    """The status message's text."""
    tag = f" · `{job.id}`"
    count = f"{job.file_count} file{'s' * (job.file_count != 1)}"
    match job.status:
        case Status.QUEUED if job.position:
            return f"Download queued. Position in queue: {job.position}{tag}"
        case Status.QUEUED if job.attempts:
            return f"Download queued{tag}"
        case Status.PROCESSING if progress and progress.share is not None:
            return f"{escape(progress.name, 100)}{tag}\n{bar(progress.share)}"
        case Status.DOWNLOADING if progress:
            return f"Downloading{tag}\n{render_progress(progress)}"
        case Status.QUEUED | Status.DOWNLOADING:
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
            text = f"**Download failed** ({job.cause}){tag}\n{job.error}"
            return text[:MAX_CONTENT]


def bar(share: float) -> str:
    """A bar of 16 blocks, and percent."""
    filled = round(share * 16)
    return f"`{'█' * filled}{'░' * (16 - filled)}` {share:.0%}"


def render_progress(progress: Progress) -> str:
    """File name, bar, percent, speed and time left, as far as they are known."""
    facts = []
    if progress.total_bytes:
        facts.append(bar(min(progress.done_bytes / progress.total_bytes, 1)))
        total = format_size(progress.total_bytes)
        facts.append(f"{format_size(progress.done_bytes)} of {total}")
    else:
        facts.append(format_size(progress.done_bytes))
    if progress.speed_bytes_s:
        facts.append(f"{format_size(progress.speed_bytes_s)}/s")
        if progress.total_bytes:
            left = max(progress.total_bytes - progress.done_bytes, 0)
            facts.append(f"{format_time(left / progress.speed_bytes_s)} left")
    of = f" ({progress.item} of {progress.items})" if progress.items else ""
    return f"{escape(progress.name, 100)}{of}\n{' · '.join(facts)}"
