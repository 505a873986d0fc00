"""Jobs for commands and buttons: find them, show them, cancel them, try them again."""

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import discord
from bossbot_plugins._commands import Asked, Denied, admit, user_of
from bossbot_plugins._links import show_link
from bossbot_plugins._spoilers import hide

from bossbot import (
    ATTEMPT_STATUSES,
    SENTENCES,
    TERMINAL_STATUSES,
    App,
    Cause,
    Job,
    Post,
    Progress,
    Refused,
    Status,
    _,
    escape,
    format_time,
    now,
    public_url,
)

MODERATOR = ("manage_messages",)
CANCELLABLE = (Status.QUEUED, *ATTEMPT_STATUSES)
RETRYABLE = (Status.FAILED, Status.CANCELLED)
MARKS = " `#*_.,;:!?<>()[]\"'“”‘’"  # around an id in a sentence
UNFINISHED = tuple(status for status in Status if status not in TERMINAL_STATUSES)


def guild_id_of(asked: Asked) -> int:
    return asked.guild.id if asked.guild else 0


# ── Whose jobs ─────────────────────────────────────────────────────────────────────


def belongs_here(asked: Asked, job: Job | None) -> bool:
    """Whether it is a job of the server that it is asked for in; of direct messages only
    the member's own."""
    if job is None or job.guild_id != guild_id_of(asked):
        return False
    return bool(job.guild_id) or job.user_id == user_of(asked).id


async def jobs_here(
    app: App, asked: Asked, statuses: Sequence[Status], **which: Any
) -> list[Job]:
    """The jobs of a server, in the order they came; see ``Queue.list``."""
    jobs = await app.queue.list(guild_id_of(asked), statuses, **which)
    return [job for job in jobs if belongs_here(asked, job)]


async def unfinished(app: App, guild_id: int | None = None) -> AsyncIterator[Job]:
    """The jobs of a server that have not ended, or of all servers: then there may be
    many, and a few are read at a time."""
    if guild_id is None:
        async for job in app.queue.untold():
            if job.status in UNFINISHED:
                yield job
        return
    for job in await app.queue.list(guild_id, UNFINISHED):
        yield job


async def find_job(app: App, asked: Asked, job_id: str) -> Job:
    """A job by its id; Refused for one that is not there, or is another server's."""
    job = await app.queue.get(job_id.strip(MARKS).lower())
    if job is None or not belongs_here(asked, job):
        name = f"`{escape(job_id, 20)}`"
        raise Refused(_("There is no download {id} here.").format(id=name))
    return job


async def admit_to(
    asked: Asked, name: str, jobs: Iterable[Job], dry: bool = False
) -> None:
    """Let a member change jobs that are the member's own, or anybody's with the right to
    manage messages. Raises Denied."""
    own = all(job.user_id == user_of(asked).id for job in jobs)
    needs = ("send_messages",) if own else MODERATOR
    await admit(asked, name, group="queue", needs=needs, dry=dry)


async def may_change(asked: Asked, name: str, jobs: Iterable[Job]) -> list[Job]:
    """Those of the jobs that a member may change."""
    try:
        await admit(asked, name, group="queue", needs=MODERATOR, dry=True)
        return list(jobs)
    except Denied:
        return [job for job in jobs if job.user_id == user_of(asked).id]


def is_open(asked: Asked, job: Job, private: bool) -> bool:
    """Whether those who see the answer, the member only or everybody in the channel, may
    see the job's channel, and so its link."""
    if job.channel_id == asked.channel.id or not asked.guild:  # type: ignore[union-attr]
        return True
    channel = asked.guild.get_channel_or_thread(job.channel_id)
    if channel is None:
        return False
    who: Any = user_of(asked) if private else asked.guild.default_role
    try:
        may = channel.permissions_for(who)
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        return False
    closed = isinstance(channel, discord.Thread) and channel.is_private()
    return may.view_channel and (may.manage_threads or not closed)


def is_quiet(job: Job) -> bool:
    """Whether no message shows how a job is getting on: nobody gave a command for it."""
    return bool(job.options.get("auto"))


# ── Changes ────────────────────────────────────────────────────────────────────────


async def cancel(app: App, job: Job) -> None:
    """Cancel a job; Refused when that can no longer be done."""
    if await app.queue.cancel(job.id) is None:
        stored = await app.queue.get(job.id)
        if stored and stored.status is Status.UPLOADING:
            raise Refused(
                _("{id} is being posted and cannot be stopped any more.").format(
                    id=tag(job)
                )
            )
        raise Refused(_("{id} has ended already.").format(id=tag(job)))


async def retry(app: App, job: Job) -> str:
    """Take in the link of a failed or cancelled job again, as a job of the same
    request; returns the answer to the member. Raises Refused."""
    if job.status not in RETRYABLE:
        raise Refused(
            _("{id} has neither failed nor been cancelled.").format(id=tag(job))
        )
    request, tries = split_key(job.request_key)
    accepted = await app.intake(
        Job(
            url=job.url,
            guild_id=job.guild_id,
            channel_id=job.channel_id,
            user_id=job.user_id,
            request_key=f"{request}#{tries + 1}",
            message_id=job.message_id,
            options=job.options,
            priority=job.priority,
            status_message_id=job.status_message_id,
        )
    )
    if accepted is None:
        raise Refused(_("{id} has been tried again already.").format(id=tag(job)))
    if not accepted.job:
        return accepted.answer
    return _("Trying {id} again, as {new}.").format(id=tag(job), new=tag(accepted.job))


def split_key(request_key: str) -> tuple[str, int]:
    """The common part of the keys of a link's tries, and the number of this try, from
    0."""
    request, mark, number = request_key.rpartition("#")
    if mark and number.isdecimal():
        return request, int(number)
    return request_key, 0


# ── How they look ──────────────────────────────────────────────────────────────────


def tag(job: Job) -> str:
    return f"`{job.id}`"


def ids_in(text: str) -> list[str]:
    """The ids of jobs in a text of ours."""
    return re.findall(r"`([0-9a-f]{10})`", text)


def place_of(job: Job, post: Post) -> int:
    """The channel that a post of a job is in."""
    return post.channel_id or post.thread_id or job.channel_id


def message_link(guild_id: int, channel_id: int, message_id: int) -> str:
    """A link to a message, which Discord shows as the name of its channel."""
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"


def post_link(job: Job) -> str:
    """A link to the first message with a job's files; "" when there is none."""
    sent = (post for post in job.posts if post.message_id)
    links = (message_link(job.guild_id, place_of(job, p), p.message_id) for p in sent)
    return next(links, "")


def share_of(job: Job, progress: Progress | None) -> float | None:
    """How much of a step is done, from 0 to 1, if that is known."""
    if progress is None or job.status not in ATTEMPT_STATUSES:
        return None
    if progress.total_bytes and job.status is Status.DOWNLOADING:
        return min(progress.done_bytes / progress.total_bytes, 1)
    return progress.share


def stage(job: Job, progress: Progress | None = None) -> str:
    """A job's stage, in a few words."""
    share = share_of(job, progress)
    match job.status:
        case Status.QUEUED if job.joins:
            text = _("joined an earlier request")
        case Status.QUEUED:
            text = _("waiting")
        case Status.DOWNLOADING:
            text = _("downloading")
        case Status.PROCESSING:
            text = _("being made to fit")
        case Status.UPLOADING:
            text = _("being posted")
        case Status.COMPLETED:
            text = _("done")
        case Status.FAILED:
            text = _("failed")
        case Status.CANCELLED:
            text = _("cancelled")
    return text if share is None else f"{text}, {share:.0%}"


def describe(job: Job, is_open: bool, progress: Progress | None = None) -> str:
    """A job in a line of at most 300 characters, with its link if that is open."""
    link = show_link(public_url(job), 150) or escape(public_url(job), 60)
    link = hide(job, link)
    if not is_open:
        link = _("in a channel that not everybody here can see")
    age = format_time(max(now() - job.created_at, 0))
    return f"{tag(job)} {stage(job, progress)} · {link} · <@{job.user_id}> · {age}"


def details(job: Job, with_log: bool = False) -> discord.Embed:
    """Everything that a member may know about a failed job; with lines of the log, too,
    for the bot's owner. At most 1,800 characters."""
    error = _(job.error or SENTENCES[Cause.INTERNAL])
    embed = discord.Embed(title=_("Download failed"), description=error[:900])
    took = format_time(max(job.finished_at - job.created_at, 0))
    facts = {
        _("Reason"): _(str(job.cause or "")),
        _("Link"): hide(job, show_link(public_url(job), 200)),
        _("Site"): escape(job.platform, 100),
        _("Engine"): escape(job.engine, 100),
        _("Attempts"): str(job.attempts or ""),
        _("Took"): took,
        _("Log"): escape(job.detail, 250) if with_log else "",
    }
    for name, value in facts.items():
        if value:
            embed.add_field(name=name, value=value, inline=len(value) < 30)
    embed.set_footer(text=job.id)
    return embed


MAX_REMOVED = 1000
_removed: dict[int, None] = {}  # status messages, the newest last


def note_removed(message_id: int) -> None:
    """Keep in mind that the bot removes a status message."""
    _removed[message_id] = None
    for old in list(_removed)[:-MAX_REMOVED]:
        del _removed[old]


def may_be_post(event: discord.RawMessageDeleteEvent) -> bool:
    """Whether the message that was deleted may have been a post; a status message that
    the bot has removed was none, and nobody has to look for it."""
    return event.message_id not in _removed
