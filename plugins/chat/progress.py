"""The status message of a job: edited as the download goes on."""

import asyncio
import contextlib

import aiohttp
import discord
from loguru import logger
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

MAX_CONTENT = 2000  # Discord, 2026-11: characters
EDIT_TIMEOUT_S = 30
MAX_FAILURES = 5  # of edits in turn, then that state is given up
NO_MESSAGE_S = 10  # an answer to the request that takes longer has failed
UNTOLD = "jobs whose end is to be told"  # the fact, by their ids
ANSWERED = (Status.QUEUED, Status.DOWNLOADING)  # the answer to the request says so


class Config(PluginConfig):
    """[plugins.progress] in config.toml."""

    # No limit is published; one edit in 2.5 to 5 s per message is civil.
    edit_interval_s: float = Field(2.5, ge=1, description="between two edits")


class Tracker:
    """The status messages of the running jobs: what to show, and one editor each."""

    def __init__(self) -> None:
        self.bot: BossBot
        self.started = asyncio.Event()
        self.recalled = False  # whose messages the last run left to be seen to
        self.stopping = asyncio.Event()  # nothing waits any more
        self.jobs: dict[str, Job] = {}
        self.progress: dict[str, Progress] = {}
        self.shown: dict[str, str] = {}
        self.editors: dict[str, asyncio.Task[None]] = {}

    def show(self, job_id: str, interval_s: float) -> asyncio.Task[None]:
        """See to it that the message shows the newest state before long."""
        task = self.editors.get(job_id)
        if task is None or task.done():
            task = asyncio.create_task(self._edit(job_id, interval_s))
            self.editors[job_id] = task
        return task

    async def remember(self) -> None:
        """Store whose messages are not final, for the next start to see to."""
        if self.recalled:
            with logger.catch(message=f"not stored: {UNTOLD}", level="DEBUG"):
                await self.bot.pipeline.db.fact(UNTOLD, " ".join(self.jobs))

    async def _edit(self, job_id: str, interval_s: float) -> None:
        """Edit until the message shows the newest state, not more often than allowed."""
        await self.started.wait()
        failures = 0
        while job := self.jobs.get(job_id):
            text = render(job, self.progress.get(job_id))
            ended = job.status in TERMINAL_STATUSES
            if text == self.shown.get(job_id):
                break
            if not job.status_message_id:
                if not ended:
                    break
                # A job can end before its message is known, or have none.
                await self._pause(NO_MESSAGE_S)
                if (job := self.jobs[job_id]).status_message_id:
                    continue
            if await self._write(job, text) or failures == MAX_FAILURES:
                self.shown[job_id], failures = text, 0
            else:
                failures += 1
            if ended and not failures:
                for known in (self.jobs, self.progress, self.shown, self.editors):
                    known.pop(job_id, None)
                await self.remember()
                return
            await self._pause(interval_s)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _write(self, job: Job, text: str) -> bool:
        """Edit the message, False when it is worth another try. A failure that cannot
        be shown there is said in the channel, or else to the member."""
        channel = self.bot.get_partial_messageable(job.channel_id)
        failed = job.status is Status.FAILED
        # The message is a courtesy: that it cannot be edited fails no job.
        try:
            async with asyncio.timeout(EDIT_TIMEOUT_S):
                if job.status_message_id:
                    with contextlib.suppress(discord.NotFound, discord.Forbidden):
                        message = channel.get_partial_message(job.status_message_id)
                        await message.edit(content=text)
                        return True
                if failed:
                    with contextlib.suppress(discord.NotFound, discord.Forbidden):
                        await channel.send(text)
                        return True
                    user = await self.bot.fetch_user(job.user_id)
                    await user.send(text)
        except discord.HTTPException as error:
            return error.status < 500 and error.status != 429
        except (discord.DiscordException, OSError, aiohttp.ClientError):
            return False
        except RuntimeError:  # the bot has stopped, and its session with it
            if not self.stopping.is_set():
                raise
        return True


tracker = Tracker()


@hookimpl
async def bot_started(bot: BossBot, config: Config) -> None:
    tracker.bot = bot
    try:
        with logger.catch(message=f"not known: {UNTOLD}"):
            for job_id in (await bot.pipeline.db.fact(UNTOLD)).split():
                if job := await bot.pipeline.queue.get(job_id):
                    tracker.jobs.setdefault(job_id, job)
                    if job.status in TERMINAL_STATUSES:
                        tracker.show(job_id, config.edit_interval_s)
            tracker.recalled = True
    finally:
        tracker.started.set()
    await tracker.remember()


@hookimpl
async def bot_stopping(bot: BossBot) -> None:
    tracker.stopping.set()


@hookimpl
async def job_changed(job: Job, config: Config) -> None:
    known = tracker.jobs.get(job.id)
    if known and not job.status_message_id:
        job.status_message_id = known.status_message_id
    elif known and not known.status_message_id:  # the request has been answered
        if job.status in ANSWERED:
            tracker.shown[job.id] = render(job, None)
        if editor := tracker.editors.pop(job.id, None):
            editor.cancel()  # it waits for the message in vain
    tracker.jobs[job.id] = job
    editor = tracker.show(job.id, config.edit_interval_s)
    if known is None:
        await tracker.remember()
    if tracker.stopping.is_set():
        await editor  # the bot waits for this, not for the editor


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
            text = f"**Download failed** ({job.cause}){tag}\n{job.error}"
            return text[:MAX_CONTENT]


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
        if progress.total_bytes:
            left = max(progress.total_bytes - progress.done_bytes, 0)
            facts.append(f"{format_time(left / progress.speed_bytes_s)} left")
    of = f" ({progress.item} of {progress.items})" if progress.items else ""
    return f"{escape(progress.name, 100)}{of}\n{' · '.join(facts)}"
