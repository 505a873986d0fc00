"""The commands for the queue: /queue list, clear, cancel, retry, move and purge."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, Self

import discord
from bossbot_plugins._answers import fitted, reply
from bossbot_plugins._audit import note
from bossbot_plugins._commands import Asked, admit, guard, user_of
from bossbot_plugins._jobs import (
    CANCELLABLE,
    MODERATOR,
    RETRYABLE,
    UNFINISHED,
    admit_to,
    cancel,
    describe,
    find_job,
    guild_id_of,
    is_open,
    jobs_here,
    may_change,
    retry,
    stage,
    tag,
)
from bossbot_plugins._privacy import forget_ended
from bossbot_plugins._shared import shared_queue
from bossbot_plugins._words import NOTHING, Running, check_words
from discord import app_commands
from discord.ext import commands

from bossbot import (
    TERMINAL_STATUSES,
    App,
    BossBot,
    Job,
    Priority,
    Progress,
    Refused,
    Status,
    _,
    escape,
    format_size,
    format_time,
    hookimpl,
    ngettext,
    now,
    one_line,
    public_url,
)

Context = commands.Context[Any]
PER_PAGE = 10
MAX_WORKERS = 10  # that one answer has room for
MAX_CHOICES = 25  # Discord, 2026-11
RETRY_DAYS = 7  # autocomplete offers no older ones
CONFIRM_WITHIN_S = 300
PRIORITIES = {"low": Priority.LOW, "normal": Priority.NORMAL, "high": Priority.HIGH}

latest: dict[str, Progress] = {}  # of running jobs, as far as this process has it


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    return [Queue(bot), PageButton, ConfirmButton]


@hookimpl
async def job_progressed(job: Job, progress: Progress) -> None:
    latest[job.id] = progress


@hookimpl
async def job_changed(job: Job) -> None:
    if job.status in (*TERMINAL_STATUSES, Status.QUEUED):
        latest.pop(job.id, None)


class Queue(commands.Cog):
    """What is waiting and running."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app

    # A group's own body runs only for the prefix: "$queue" is "$queue list".
    @guard("queue list", group="queue")
    @commands.hybrid_group(invoke_without_command=True, case_insensitive=True)
    async def queue(self, ctx: Context, *, words: str = "") -> None:
        """See and change the queue."""
        check_words(self.queue, words)
        await self.show_list(ctx)

    @guard("queue list", group="queue")
    @queue.command(name="list")
    async def list_(self, ctx: Context) -> None:
        """Show the running and the waiting downloads of this server."""
        await self.show_list(ctx)

    @guard("queue list", group="queue")
    @commands.command(name="dlq", hidden=True)
    async def dlq(self, ctx: Context) -> None:
        """Show the running and the waiting downloads of this server."""
        await self.show_list(ctx)

    async def show_list(self, ctx: Context) -> None:
        embed, view = await list_page(self.app, ctx, 1, private=bool(ctx.interaction))
        await reply(ctx, embed=embed, view=view)

    @guard("queue workers", group="owner", needs=())
    @queue.command(ignore_extra=False)
    @commands.is_owner()
    async def workers(self, ctx: Context) -> None:
        """Show the machines that download and post, for the bot's owner."""
        if not (queue := shared_queue(self.app)):
            raise Refused(_("The queue is not shared: this machine does all the work."))
        text = _(
            "{name}: version {version}, {running} of {slots} downloads, seen {time} ago"
        )
        lines = [
            text.format(
                name=escape(one.name, 100),
                version=escape(one.version, 20),
                running=one.running,
                slots=one.slots,
                time=format_time(one.seen_s),
            )
            for one in await queue.workers()
        ]
        none = _("No machine was seen in the last day.")
        await reply(ctx, "\n".join(lines[:MAX_WORKERS]) or none)

    @guard("queue clear", group="queue", needs=MODERATOR)
    @queue.command(ignore_extra=False)
    @app_commands.describe(running="also stop running downloads")
    async def clear(self, ctx: Context, running: Running = NOTHING) -> None:
        """Remove all waiting links of this server, and if you want, the running ones."""
        statuses = CANCELLABLE if running else (Status.QUEUED,)
        jobs = await jobs_here(self.app, ctx, statuses)
        if not jobs:
            raise Refused(_("There is nothing to remove."))
        question = ngettext(
            "Remove {count} link from the queue?",
            "Remove {count} links from the queue?",
            len(jobs),
        ).format(count=len(jobs))
        what = "all" if running else "waiting"
        await ask(ctx, question, ConfirmButton("clear", what, user_of(ctx).id))

    @guard("queue cancel", group="queue")
    @queue.command(ignore_extra=False)
    @app_commands.describe(id="the number of a download")
    async def cancel(self, ctx: Context, id: str) -> None:
        """Cancel a download that is waiting or running."""
        await self.do_cancel(ctx, id)

    @guard("queue cancel", group="queue")
    @commands.command(name="dlc", hidden=True)
    async def dlc(self, ctx: Context, id: str) -> None:
        """Cancel a download that is waiting or running."""
        await self.do_cancel(ctx, id)

    async def do_cancel(self, ctx: Context, job_id: str) -> None:
        await ctx.defer(ephemeral=True)
        job = await find_job(self.app, ctx, job_id)
        await admit_to(ctx, "queue cancel", [job], dry=True)
        await cancel(self.app, job)
        await reply(ctx, _("{id} is cancelled.").format(id=tag(job)))

    @guard("queue retry", group="queue")
    @queue.command(ignore_extra=False)
    @app_commands.describe(id="the number of a download")
    async def retry(self, ctx: Context, id: str) -> None:
        """Try a failed or cancelled download again."""
        await ctx.defer(ephemeral=True)
        job = await find_job(self.app, ctx, id)
        await admit_to(ctx, "queue retry", [job], dry=True)
        await reply(ctx, await retry(self.app, job))

    @guard("queue move", group="queue", needs=MODERATOR)
    @queue.command(ignore_extra=False)
    @app_commands.describe(id="the number of a download", priority="its new priority")
    async def move(
        self, ctx: Context, id: str, priority: Literal["low", "normal", "high"]
    ) -> None:
        """Change the priority of a waiting download."""
        await ctx.defer(ephemeral=True)
        job = await find_job(self.app, ctx, id)
        if not await self.app.queue.move(job.id, PRIORITIES[priority]):
            raise Refused(_("{id} is not waiting.").format(id=tag(job)))
        position = await self.app.queue.position(job.id)
        text = _("{id} is now number {position} in the queue of this server.")
        await reply(ctx, text.format(id=tag(job), position=position))

    @guard("queue purge", group="privacy", needs=MODERATOR)
    @queue.command(ignore_extra=False)
    @app_commands.describe(member="only posts that this member asked for")
    async def purge(self, ctx: Context, member: discord.User = NOTHING) -> None:
        """Forget the ended downloads of this server, and delete their files."""
        if member:
            question = _("Forget all downloads of {member} that have ended here?")
        else:
            question = _("Forget all downloads that have ended on this server?")
        text = question.format(member=member.mention if member else "")
        what = str(member.id if member else 0)
        button = ConfirmButton("purge", what, user_of(ctx).id)
        await ask(ctx, text, button)

    # Choices

    @cancel.autocomplete("id")
    async def cancellable(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        return await self.choices(interaction, typed, "queue cancel", CANCELLABLE)

    @move.autocomplete("id")
    async def waiting(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        return await self.choices(interaction, typed, "queue move", (Status.QUEUED,))

    @retry.autocomplete("id")
    async def retryable(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        return await self.choices(
            interaction,
            typed,
            "queue retry",
            RETRYABLE,
            since=now() - RETRY_DAYS * 86400,
            limit=10 * MAX_CHOICES,
        )

    async def choices(
        self,
        interaction: discord.Interaction,
        typed: str,
        name: str,
        statuses: Sequence[Status],
        **which: Any,
    ) -> list[app_commands.Choice[str]]:
        """The downloads that a member may do that with, the newest first."""
        jobs = await jobs_here(self.app, interaction, statuses, **which)
        jobs = await may_change(interaction, name, jobs)
        found = []
        for job in reversed(jobs):
            link = public_url(job) if is_open(interaction, job, private=True) else ""
            text = one_line(f"{job.id} {stage(job)} {link}")[:100]
            if typed.strip().lower() in text.lower():
                found.append(app_commands.Choice(name=text, value=job.id))
        return found[:MAX_CHOICES]


# ── The list ───────────────────────────────────────────────────────────────────────


async def list_page(
    app: App, asked: Asked, number: int, private: bool
) -> tuple[discord.Embed, discord.ui.View]:
    """A page of the running and waiting jobs here, the nearest one to ``number``, for
    the member only or for everybody in the channel."""

    def line(job: Job) -> str:
        return describe(job, is_open(asked, job, private), latest.get(job.id))

    jobs = await jobs_here(app, asked, UNFINISHED)
    running = [job for job in jobs if job.status is not Status.QUEUED]
    waiting = [job for job in jobs if job.status is Status.QUEUED and not job.joins]
    joined = [job for job in jobs if job.status is Status.QUEUED and job.joins]
    waiting.sort(key=lambda job: -job.priority)  # those of a kind stay in order
    lines = [line(job) for job in running]
    for place, job in enumerate(waiting, 1):
        lines.append(f"{place}. {line(job)}{marked(job)}")
    lines += map(line, joined)
    pages = max(-(-len(lines) // PER_PAGE), 1)
    number = min(max(number, 1), pages)
    shown = lines[(number - 1) * PER_PAGE : number * PER_PAGE]
    embed = discord.Embed(
        title=_("{running} running, {waiting} waiting").format(
            running=len(running), waiting=len(waiting)
        ),
        description="\n".join(shown) or _("Nothing is waiting or running."),
    )
    view = discord.ui.View(timeout=None)
    if pages > 1:
        text = _("Page {page} of {pages}").format(page=number, pages=pages)
        embed.set_footer(text=text)
        view.add_item(PageButton("previous", number - 1, number > 1))
        view.add_item(PageButton("next", number + 1, number < pages))
    view.add_item(PageButton("refresh", number))
    return embed, view


def marked(job: Job) -> str:
    """A waiting job's priority, where it is not the usual one."""
    marks = {Priority.LOW: _("low"), Priority.HIGH: _("high")}
    return f" · {marks[job.priority]}" if job.priority in marks else ""


class PageButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"queue:(?P<name>previous|next|refresh):(?P<page>\d{1,6})",
):
    """Shows another page of the list, as it is then."""

    def __init__(self, name: str, page: int, useful: bool = True) -> None:
        labels = {
            "previous": _("Previous"),
            "next": _("Next"),
            "refresh": _("Refresh"),
        }
        custom_id = f"queue:{name}:{page}"
        super().__init__(
            discord.ui.Button(
                label=labels[name], custom_id=custom_id, disabled=not useful
            )
        )
        self.page = page

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(match["name"], int(match["page"]))

    async def callback(self, interaction: discord.Interaction) -> None:
        bot: Any = interaction.client
        await admit(interaction, "queue list", group="queue", dry=True)
        private = bool(interaction.message and interaction.message.flags.ephemeral)
        embed, view = await list_page(bot.app, interaction, self.page, private)
        await interaction.response.edit_message(embed=fitted(embed), view=view)


# ── What is asked for twice ────────────────────────────────────────────────────────


async def ask(ctx: Context, question: str, button: Any) -> None:
    view = discord.ui.View(timeout=None)
    view.add_item(button)
    await reply(ctx, question, view=view)


class ConfirmButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=(
        r"queue:(?P<name>clear|purge):(?P<what>waiting|all|\d{1,20}):(?P<user>\d{1,20})"
    ),
):
    """Removes the queue's jobs, "waiting" or "all", or forgets ended ones: of a member,
    or 0 for all."""

    def __init__(self, name: str, what: str, user_id: int) -> None:
        labels = {"clear": _("Remove"), "purge": _("Forget")}
        style = discord.ButtonStyle.danger
        custom_id = f"queue:{name}:{what}:{user_id}"
        super().__init__(
            discord.ui.Button(label=labels[name], style=style, custom_id=custom_id)
        )
        self.name, self.what, self.user_id = name, what, user_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(match["name"], match["what"], int(match["user"]))

    async def callback(self, interaction: discord.Interaction) -> None:
        """Does it for a member who has just asked for it and still may do it."""
        do, group = {"clear": (clear, "queue"), "purge": (purge, "privacy")}[self.name]
        name = f"queue {self.name}"
        await admit(interaction, name, group=group, needs=MODERATOR, dry=True)
        if interaction.user.id != self.user_id:
            raise Refused(_("Only the member who asked for it may do that."))
        asked_at = interaction.message.created_at if interaction.message else None
        age = discord.utils.utcnow() - asked_at if asked_at else timedelta()
        if age.total_seconds() > CONFIRM_WITHIN_S:
            raise Refused(_("That was too long ago. Ask again."))
        await interaction.response.defer()
        bot: Any = interaction.client
        text = await do(bot.app, interaction, self.what)
        await interaction.edit_original_response(content=text, view=None)


async def clear(app: App, interaction: discord.Interaction, what: str) -> str:
    waiting_only = what == "waiting"
    statuses = (Status.QUEUED,) if waiting_only else CANCELLABLE
    removed = 0
    # Those that wait first: else they would start in place of those that run.
    jobs = await jobs_here(app, interaction, statuses)
    for job in sorted(jobs, key=lambda job: job.status is not Status.QUEUED):
        if await app.queue.cancel(job.id, waiting_only):
            removed += 1
    text = ngettext("{count} link removed.", "{count} links removed.", removed)
    return text.format(count=removed)


async def purge(app: App, interaction: discord.Interaction, what: str) -> str:
    guild_id = guild_id_of(interaction)
    member_id = int(what) or (None if guild_id else interaction.user.id)
    forgotten = await forget_ended(app, guild_id, member_id)
    who, jobs = interaction.user.id, forgotten.jobs
    await note(app, guild_id, who, "queue purge", downloads=jobs)
    return ngettext(
        "{count} download forgotten, {size} of files deleted.",
        "{count} downloads forgotten, {size} of files deleted.",
        forgotten.jobs,
    ).format(count=forgotten.jobs, size=format_size(forgotten.size_bytes))
