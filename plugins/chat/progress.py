"""The status message that answers a request: written when its first job is queued, and
edited until all its jobs have ended. Several jobs get a line each. It has buttons, and is
deleted once all files are there."""

import asyncio
import contextlib
import heapq
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import discord
from bossbot_plugins._answers import MAX_CONTENT, fitted
from bossbot_plugins._commands import admit
from bossbot_plugins._jobs import (
    CANCELLABLE,
    RETRYABLE,
    UNFINISHED,
    admit_to,
    belongs_here,
    cancel,
    details,
    ids_in,
    is_quiet,
    note_removed,
    post_link,
    retry,
    share_of,
    split_key,
)
from bossbot_plugins._links import show_link
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._shared import shared_queue
from bossbot_plugins._spoilers import hide
from loguru import logger
from pydantic import Field

from bossbot import (
    ATTEMPT_STATUSES,
    N_,
    TERMINAL_STATUSES,
    App,
    BossBot,
    Cause,
    Job,
    OutOfReach,
    PluginConfig,
    Progress,
    Refused,
    Status,
    _,
    escape,
    format_size,
    format_time,
    hookimpl,
    language,
    ngettext,
    now,
    public_url,
)

MAX_EMBEDS = 3  # that describe a failure: they fit in one message
MAX_FAILURES = 5  # of edits in turn, then that state is given up
MAX_ENDED = 100  # requests whose jobs have ended, and which may get one more
HELD_BACK_S = 1.0  # a write that takes longer waits for other requests of the bot
UNTOLD_S = 86400.0  # an older end is not shown any more
MAX_LOOKED_AT = 100  # messages after a request, of which one may be about it
MAX_RECALLED = 1000  # requests that wait at a start, and are kept up to date
LOOK_S = 1.0  # between two looks at the messages of waiting links
MAX_PLACES, MAX_STUCK = 2, 20  # messages that one look brings up to date
MAX_SOUGHT = 10  # messages of whose links one look asks whether the queue has them
LOST = N_("The queue has lost this link. Send it again.")
SETTLED_S = 5.0  # after which a link that was to start at once has a place in the queue
# After so long unseen, a worker takes no new links, or has stopped work on its links.
LATE_S, GONE_S = 3.0, 30.0
# Made once: each takes loguru longer than a log line.
NOT_NOTED = logger.catch(message="a status message is not noted")
TOLD_AGAIN = logger.catch(message="a result may be announced twice")


class Config(PluginConfig):
    """[plugins.progress] in config.toml."""

    # No limit is published; one edit in 2.5 to 5 s per message is civil.
    edit_interval_s: float = Field(
        2.5, ge=1, description="time between two edits of a status message"
    )


class GuildConfig(PluginConfig):
    """[progress] of a server."""

    status_when_done: Literal["delete", "keep"] = Field(
        "delete",
        description="what happens to a status message once the files are there",
    )


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    return [StatusButton]


@dataclass
class Group:
    """The jobs of one request, which share a status message."""

    key: str
    jobs: dict[str, Job] = field(default_factory=dict)
    message_id: int = 0
    unsure: bool = False  # whether it has a message that nobody has noted
    noted: set[str] = field(default_factory=set)  # jobs that know their message
    stuck: Collection[Status] = ()  # see ``Tracker``, when the message was written
    placed_s: float = 0  # when its places were looked up, by the loop's clock
    progress: dict[str, Progress] = field(default_factory=dict)
    shown: tuple[str, ...] = ()  # the text, and the buttons
    next_s: float = 0  # when it may be edited again, by the loop's clock
    over: asyncio.Event = field(default_factory=asyncio.Event)  # all have ended
    editor: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return all(job.status in TERMINAL_STATUSES for job in self.jobs.values())

    @property
    def done(self) -> bool:
        """Whether all files are there."""
        return all(job.status is Status.COMPLETED for job in self.jobs.values())

    @property
    def waiting(self) -> list[Job]:
        """The jobs that have a place in the queue."""
        jobs = (job for job in self.jobs.values() if job.status is Status.QUEUED)
        settled_s = now() - SETTLED_S
        return [
            job
            for job in jobs
            if not job.joins
            and not job.attempts
            and (job.position or job.created_at < settled_s)
        ]

    def differs(self, stuck: Collection[Status]) -> bool:
        """Whether its message is out of date on whether a worker is there."""
        jobs = self.jobs.values()
        return any((job.status in stuck) != (job.status in self.stuck) for job in jobs)

    @property
    def first(self) -> Job:
        return next(iter(self.jobs.values()))

    @property
    def newest(self) -> Job:
        """One that no message has shown yet, if there is any."""
        fresh = (job for job in self.jobs.values() if job.id not in self.noted)
        return next(fresh, self.first)

    def add(self, job: Job) -> None:
        """Take a job in, or its newer state; in the order of the links. It takes the
        place of an earlier try of its link."""
        request, tries = split_key(job.request_key)
        for other in list(self.jobs.values()) if job.request_key else ():
            same, try_of_other = split_key(other.request_key)
            if same == request and try_of_other > tries:
                return
            if same == request and try_of_other < tries:
                del self.jobs[other.id]
        new = job.id not in self.jobs
        self.jobs[job.id] = job
        if self.ended:
            self.over.set()
        else:
            self.over.clear()
        if new:
            self.jobs = dict(sorted(self.jobs.items(), key=lambda pair: order(pair[1])))
        if job.status_message_id and not self.message_id:
            self.message_id = job.status_message_id
        if job.status_message_id:
            self.noted.add(job.id)


def unfinished_of(group: Group) -> list[Job]:
    return [one for one in group.jobs.values() if one.status not in TERMINAL_STATUSES]


def group_key(job: Job) -> str:
    """What the jobs of one message or interaction have in common."""
    request = job.request_key.partition(":")[0]
    return f"{job.channel_id}:{request}" if request.isdecimal() else job.id


def order(job: Job) -> int:
    """The number of a job's link in its request."""
    number = split_key(job.request_key)[0].partition(":")[2]
    return int(number) if number.isdecimal() else 0


def shown_alone(job: Job) -> bool:
    """Whether an unfinished job has a message that is about no other one."""
    tries = split_key(job.request_key)[1]
    own = job.status_message_id and not tries and not is_quiet(job)
    return bool(own and job.status in UNFINISHED)


class Tracker:
    """The status messages of the jobs under way: what to show, and one editor each."""

    edit_timeout_s = 30.0

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self.ended: dict[str, Group] = {}  # the newest last
        self.room_at_s = 0.0  # by the loop's clock: when progress may be shown again
        self.stuck: Collection[Status] = ()  # no worker is there for jobs in these
        self._late: Collection[Status] = UNFINISHED  # the same in the last look only
        self._sought: list[str] = []  # groups that looks will ask about
        self._missed: set[str] = set()  # jobs that the last look has not found

    def add(self, job: Job) -> Group:
        """The group of a job, with this state of it."""
        key = group_key(job)
        group = self.groups.get(key)
        if group is None:
            # A link may come when the others of its request have ended.
            earlier = self.ended.pop(key, None)
            group = self.groups[key] = earlier or Group(key)
        group.add(job)
        return group

    def show(
        self, app: App, group: Group, interval_s: float, soon: bool = False
    ) -> asyncio.Task[None]:
        """Make the message show the newest state before long, or ``soon``."""
        if group.editor is None or group.editor.done():
            edit = self._edit(app, group, interval_s, soon)
            group.editor = asyncio.create_task(edit)
        return group.editor

    async def look(self, app: App, interval_s: float) -> None:
        """Bring a few messages up to date: the places of waiting links, and whether any
        worker is there."""
        late = await stuck_in(app)  # Redis may have been away: a second look decides
        self.stuck, self._late = [one for one in late if one in self._late], late
        groups = [group for group in self.groups.values() if not group.ended]
        for group in [g for g in groups if g.differs(self.stuck)][:MAX_STUCK]:
            self.show(app, group, interval_s, soon=True)
        await self._look_for_lost(app, interval_s)
        clock = asyncio.get_running_loop().time
        if clock() < self.room_at_s:
            return
        waiting = (group for group in groups if group.waiting)
        for group in heapq.nsmallest(MAX_PLACES, waiting, lambda one: one.placed_s):
            group.placed_s = clock()
            places = 0
            for job in group.waiting:
                if place := await app.queue.position(job.id):
                    job.position, places = place, places + 1
            text = render_all(group.jobs.values(), group.progress, self.stuck)
            if places and text not in group.shown[:1]:
                self.show(app, group, interval_s, soon=True)

    async def _look_for_lost(self, app: App, interval_s: float) -> None:
        """Tell some members whose links a shared queue does not have any more: it was
        emptied, or is an older copy of itself. The second look in a row decides."""
        if not app.queue.shared:
            return
        self._sought = self._sought or [*self.groups]
        keys, self._sought = self._sought[:MAX_SOUGHT], self._sought[MAX_SOUGHT:]
        groups = [g for key in keys if (g := self.groups.get(key)) and not g.ended]
        ids = {job.id for group in groups for job in unfinished_of(group)}
        missed = ids - (await app.queue.find([*ids])).keys() if ids else set[str]()
        lost, self._missed = missed & self._missed, missed
        if missed - lost:
            self._sought = keys + self._sought
        if lost:
            logger.error(
                "links of members are gone from the queue, which was emptied, or is an "
                "older copy of itself: {}",
                len(lost),
            )
        for group in groups:
            for job in unfinished_of(group):
                if job.id in lost:
                    gone = replace(job, status=Status.FAILED, cause=Cause.INTERNAL)
                    gone.error = LOST
                    group.add(gone)
                    self.show(app, group, interval_s, soon=True)

    async def recall(self, app: App) -> list[Group]:
        """The groups whose messages the last run left unfinished. Those whose jobs all
        wait or run, and have their message, come with their next change."""
        seen: set[str] = set()
        unfinished: set[str] = set()
        async for job in app.queue.untold():
            if is_quiet(job):
                continue
            key, ended = group_key(job), job.status in TERMINAL_STATUSES
            news = not ended or job.finished_at > now() - UNTOLD_S
            if news and (ended or key in seen or not job.status_message_id):
                unfinished.add(key)
            seen.add(key)
        left: dict[str, Group] = {}
        async for job in app.queue.untold():
            if (key := group_key(job)) in unfinished and not is_quiet(job):
                known = self.groups.get(key)
                newer = known.jobs.get(job.id) if known else None
                left[key] = self.add(newer or job)
            elif shown_alone(job) and self._has_room(key):
                self.add(job)
        for group in left.values():
            group.unsure = not group.message_id
        return list(left.values())

    def _has_room(self, key: str) -> bool:
        known = key in self.groups or key in self.ended
        return not known and len(self.groups) < MAX_RECALLED

    async def note(self, app: App, group: Group) -> None:
        """Store which message shows the jobs of a group."""
        for job_id in [*group.jobs] if group.message_id else ():
            if job_id not in group.noted:
                with NOT_NOTED:
                    await app.queue.set_status_message(job_id, group.message_id)
                    group.noted.add(job_id)

    async def _edit(
        self, app: App, group: Group, interval_s: float, soon: bool
    ) -> None:
        """Write until the message shows the newest state, not more often than allowed.
        What is not the end waits for that time, as the end may follow soon."""
        language.set(group.first.language)
        failures, clock = 0, asyncio.get_running_loop().time
        later_s = clock() + interval_s * (not soon)
        while True:
            if group.message_id and not group.ended:
                until_s = max(later_s, group.next_s, self.room_at_s)
                await _first_of(until_s, app.stopping, group.over)
            await _first_of(group.next_s, app.stopping)
            text = render_all(group.jobs.values(), group.progress, self.stuck)
            group.stuck, ended = self.stuck, group.ended
            shown = (text, *buttons_of(group))
            if shown == group.shown:
                break
            last, before = failures == MAX_FAILURES, group.message_id
            gone = group.done and goes(app, group)
            began_s = clock()
            if await self._write(app, group, text, gone, last) or last:
                group.shown, failures = () if gone else shown, 0
            elif app.stopping.is_set():
                return  # the next start shows it
            else:
                failures += 1
            later_s = clock() + interval_s
            # Discord holds the bot's requests back: files and ends need all of them.
            if clock() - began_s > HELD_BACK_S:
                self.room_at_s = clock() + 4 * interval_s
            if group.message_id == before:  # else the end may follow the answer at once
                group.next_s = later_s
            if ended and not failures and group.ended:
                break
        if group.ended and group.key in self.groups:
            del self.groups[group.key]
            self.ended[group.key] = group
            for key in list(self.ended)[:-MAX_ENDED]:
                del self.ended[key]
            group.editor = None  # what comes from here on needs another one
            with TOLD_AGAIN:
                await app.queue.set_told([*group.jobs])

    async def _write(
        self, app: App, group: Group, text: str, gone: bool, last: bool
    ) -> bool:
        """Send, edit or delete the message; False when it is worth another try, if this
        is not the ``last``. A failure that cannot be shown there goes to the channel, or
        else to the member."""
        failed = any(one.status is Status.FAILED for one in group.jobs.values())
        ways = [self._delete if gone else self._in_message]
        if group.ended and failed:
            ways += [_in_channel, _to_member]
        for way in ways:
            # The message is a courtesy: that it cannot be written fails no job.
            try:
                async with asyncio.timeout(self.edit_timeout_s):
                    await way(app, group, text)
                return True
            except discord.HTTPException as error:
                again = error.status >= 500 or error.status == 429
            except UNREACHABLE:
                again = True
            except RuntimeError:  # the bot has stopped, and its session with it
                if not app.stopping.is_set():
                    raise
                again = True
            if again and not last:
                return False
        return True

    async def _in_message(self, app: App, group: Group, text: str) -> None:
        view = view_of(group)
        if message := await found_message(app, group):
            await message.edit(content=text, view=view)
        else:
            group.unsure = True  # it may be there before its id is here
            try:
                group.message_id = await app.client.answer(group.newest, text, view)
            except discord.HTTPException as error:
                group.unsure = error.status >= 500  # else Discord did not take it
                raise
            group.unsure = False
        await self.note(app, group)

    async def _delete(self, app: App, group: Group, text: str) -> None:
        """Remove the message. A slash command waits for an answer, and gets it first."""
        if not group.message_id and not group.first.message_id:
            await self._in_message(app, group, text)
        if message := await found_message(app, group):
            note_removed(message.id)
            with contextlib.suppress(discord.NotFound):
                await message.delete()
        group.message_id = 0  # a late link gets a new one

    async def bring_back(self, app: App, group: Group, job: Job) -> None:
        """Have a link that is tried again shown in the message of its request, with the
        other links that are in it; in a new message when that one is gone."""
        message = message_of(app, group)
        if not message:
            return
        try:
            async with asyncio.timeout(self.edit_timeout_s / 3):
                found = await message.fetch()
        except UNREACHABLE:
            group.message_id = 0
            group.noted.discard(job.id)
            return
        for job_id in ids_in(found.content):
            other = None if job_id in group.jobs else await app.queue.get(job_id)
            if other and group_key(other) == group.key:
                group.add(other)


async def stuck_in(app: App) -> Collection[Status]:
    """The statuses of jobs for which no worker is there."""
    queue = shared_queue(app)
    if not queue or app.works:
        return ()
    seen = (one.seen_s for one in await queue.workers() if one.slots)
    late_s = min(seen, default=math.inf)
    if late_s > GONE_S:
        return UNFINISHED
    return (Status.QUEUED,) if late_s > LATE_S else ()


async def _first_of(until_s: float, *events: asyncio.Event) -> None:
    """Wait for one of the events, or a time by the loop's clock."""
    wait_s = until_s - asyncio.get_running_loop().time()
    if wait_s <= 0:
        return
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _in_channel(app: App, group: Group, text: str) -> None:
    await app.bot.get_partial_messageable(group.first.channel_id).send(text)


async def _to_member(app: App, group: Group, text: str) -> None:
    user = await app.bot.fetch_user(group.first.user_id)
    await user.send(text)


def message_of(app: App, group: Group) -> discord.PartialMessage | None:
    if not group.message_id:
        return None
    channel = app.bot.get_partial_messageable(group.first.channel_id)
    return channel.get_partial_message(group.message_id)


async def found_message(app: App, group: Group) -> discord.PartialMessage | None:
    """A group's message, even if an earlier run sent it and ended before it had the id."""
    if group.unsure:
        group.message_id = await look_for_message(app, group)
        group.unsure = False
    return message_of(app, group)


async def look_for_message(app: App, group: Group) -> int:
    """The id of a message of ours that is about a job of a group; 0 if there is none."""
    number = group.first.request_key.partition(":")[0]
    request = group.first.message_id or (int(number) if number.isdecimal() else 0)
    if not request:
        return 0
    tags = [f" · `{job_id}`" for job_id in group.jobs]
    channel = app.bot.get_partial_messageable(group.first.channel_id)
    after = discord.Object(request)
    with contextlib.suppress(discord.Forbidden, discord.NotFound):
        async for message in channel.history(limit=MAX_LOOKED_AT, after=after):
            own = message.author == app.bot.user
            if own and any(tag in message.content for tag in tags):
                return message.id
    return 0


def goes(app: App, group: Group) -> bool:
    """Whether the server wants the message deleted when all files are there. One that
    says where they are stays."""
    if any(job.joins for job in group.jobs.values()):
        return False
    plugin = app.plugins.all["progress"]
    guild: Any = app.plugins.guild_config(plugin, group.first)
    return bool(guild.status_when_done == "delete")


tracker = Tracker()


@hookimpl
async def run(app: App, config: Config) -> None:
    if app.queue.shared and not app.has_gateway:  # another process shows them
        return
    for group in await tracker.recall(app):
        await tracker.note(app, group)
        if group.ended or len(group.jobs) > 1 or not group.message_id:
            tracker.show(app, group, config.edit_interval_s)
    while True:
        with contextlib.suppress(OutOfReach):
            await tracker.look(app, config.edit_interval_s)
        await asyncio.sleep(LOOK_S)


@hookimpl(tryfirst=True)  # the member waits for this answer
async def job_changed(job: Job, app: App, config: Config) -> None:
    if job.status in ATTEMPT_STATUSES:  # a worker has just taken it
        tracker.stuck = ()
    if is_quiet(job):
        return
    known = tracker.groups.get(group_key(job))
    new = known is None or job.id not in known.jobs
    group = tracker.add(job)
    if new and job.status_message_id and split_key(job.request_key)[1]:
        await tracker.bring_back(app, group, job)
    editor = tracker.show(app, group, config.edit_interval_s)
    if new:
        await tracker.note(app, group)
    if app.stopping.is_set():
        await editor  # the bot waits for this, not for the editor


@hookimpl
async def job_progressed(
    job: Job, progress: Progress, app: App, config: Config
) -> None:
    group = tracker.groups.get(group_key(job))
    if group and job.id in group.jobs:
        if group.jobs[job.id].status is job.status:
            group.jobs[job.id] = job  # which has the number of posted files
        group.progress[job.id] = progress
        tracker.show(app, group, config.edit_interval_s)


# The buttons


def buttons_of(group: Group) -> list[str]:
    """The buttons for the jobs of a message."""
    statuses = {job.status for job in group.jobs.values() if job.error != LOST}
    buttons = {
        "cancel": not statuses.isdisjoint(CANCELLABLE),
        "retry": not statuses.isdisjoint(RETRYABLE),
        "details": Status.FAILED in statuses,
    }
    return [name for name, useful in buttons.items() if useful]


def view_of(group: Group) -> discord.ui.View | None:
    names = buttons_of(group)
    if not names:
        return None
    view = discord.ui.View(timeout=None)
    for name in names:
        view.add_item(StatusButton(name))
    return view


class StatusButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"status:(?P<name>cancel|retry|details)",
):
    """A button of a status message, which is about all jobs that it names."""

    def __init__(self, name: str) -> None:
        labels = {
            "cancel": _("Cancel"),
            "retry": _("Try again"),
            "details": _("Details"),
        }
        super().__init__(
            discord.ui.Button(label=labels[name], custom_id=f"status:{name}")
        )
        self.name = name

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(match["name"])

    async def callback(self, interaction: discord.Interaction) -> None:
        bot: Any = interaction.client
        app: App = bot.app
        ids = ids_in(interaction.message.content if interaction.message else "")
        found = [await app.queue.get(job_id) for job_id in ids]
        jobs = [job for job in found if job and belongs_here(interaction, job)]
        match self.name:
            case "cancel":
                await cancel_all(app, interaction, jobs)
            case "retry":
                await retry_all(app, interaction, jobs)
            case "details":
                await show_details(interaction, jobs)


def check_known(jobs: list[Job]) -> None:
    if not jobs:
        raise Refused(_("There is no record of that download any more."))


async def cancel_all(
    app: App, interaction: discord.Interaction, jobs: list[Job]
) -> None:
    """Cancel the jobs that can still be cancelled; the message then shows it."""
    await admit_to(interaction, "queue cancel", jobs)
    check_known(jobs)
    await interaction.response.defer()
    refusals = []
    for job in jobs:
        if job.status not in TERMINAL_STATUSES:
            try:
                await cancel(app, job)
            except Refused as error:
                refusals.append(str(error))
    open_ones = [job for job in jobs if job.status not in TERMINAL_STATUSES]
    if len(refusals) == len(open_ones):
        raise Refused("\n".join(refusals) or _("That has ended already."))


async def retry_all(
    app: App, interaction: discord.Interaction, jobs: list[Job]
) -> None:
    """Try the jobs without files again; the message then shows it."""
    await admit_to(interaction, "queue retry", jobs)
    check_known(jobs)
    await interaction.response.defer()
    answers = {}
    for job in jobs:
        if job.status in RETRYABLE:
            try:
                answers[await retry(app, job)] = True
            except Refused as error:
                answers[str(error)] = False
    if not any(answers.values()):
        raise Refused("\n".join(answers) or _("There is nothing to try again."))


async def show_details(interaction: discord.Interaction, jobs: list[Job]) -> None:
    action = await admit(interaction, "queue list", group="queue")
    check_known(jobs)
    embeds = [
        details(job, with_log=action.owner)
        for job in jobs
        if job.status is Status.FAILED
    ]
    if not embeds:
        raise Refused(_("None of these downloads has failed."))
    embeds = [fitted(embed) for embed in embeds[:MAX_EMBEDS]]
    await interaction.response.send_message(embeds=embeds, ephemeral=True)


# The text


def render_all(
    jobs: Iterable[Job],
    progress: dict[str, Progress],
    stuck: Collection[Status] = (),
) -> str:
    """The status message's text: everything about a single job, or a line for each of
    several, with as many details as there is room for."""
    jobs = list(jobs)
    if len(jobs) == 1:
        return render(jobs[0], progress.get(jobs[0].id), stuck)
    lines = [render_line(job, progress.get(job.id), stuck) for job in jobs]
    links = [hide(job, show_link(public_url(job), 120)) for job in jobs]
    errors = [f"\n{_(job.error)}" * (job.status is Status.FAILED) for job in jobs]
    linked = [
        f"{line} {link}".rstrip() for line, link in zip(lines, links, strict=True)
    ]
    for heads in (linked, lines):
        text = "\n".join(map("".join, zip(heads, errors, strict=True)))
        if len(text) <= MAX_CONTENT:
            return text
    # Each sentence once, and cut if they are long; then not even every line.
    text = "\n".join(lines)
    failed = [
        (_(str(job.cause)), _(job.error)) for job in jobs if job.status is Status.FAILED
    ]
    reasons = [f"{cause}: {error}" for cause, error in dict.fromkeys(failed)]
    room = MAX_CONTENT - len(text)
    if reasons and (each := room // len(reasons) - 1) > 20:
        cut = (r if len(r) <= each else r[: each - 1] + "…" for r in reasons)
        return "\n".join([text, *cut])
    if room >= 0:
        return text
    kept = text[: MAX_CONTENT - 30].rpartition("\n")[0]
    more = _("… and {count} more").format(count=len(lines) - kept.count("\n") - 1)
    return f"{kept}\n{more}"


def render_line(
    job: Job, progress: Progress | None, stuck: Collection[Status] = ()
) -> str:
    """One of several jobs, in a line."""
    tag, share = f" · `{job.id}`", share_of(job, progress)
    if job.status in stuck:
        return render(job, progress, stuck)
    if progress and share is not None and job.status is Status.DOWNLOADING:
        name = hide(job, escape(progress.name, 40))
        text = _("Downloading {name}, {share}").format(name=name, share=f"{share:.0%}")
        return text + tag
    if share is not None and job.status is Status.PROCESSING:
        return _("Making it fit, {share}").format(share=f"{share:.0%}") + tag
    return render(job, progress).partition("\n")[0]


def render(job: Job, progress: Progress | None, stuck: Collection[Status] = ()) -> str:
    """The status message's text; ``stuck`` as in ``Tracker``."""
    tag = f" · `{job.id}`"
    if job.status in stuck:
        text = _("No worker is running now. Your link waits for one, and is not lost.")
        return text + tag
    count, posted = job.file_count, ""
    if job.posted:
        posted = " · " + _("{count} posted").format(count=job.posted)
    match job.status:
        case Status.QUEUED if job.joins:
            text = _(
                "That is being downloaded already. This message changes when it is "
                "done."
            )
            return text + tag
        case Status.COMPLETED if job.joins:
            return _("It is here: {link}").format(link=post_link(job)) + tag
        case Status.QUEUED if job.position:
            text = _("Download queued. Position in queue: {position}")
            return text.format(position=job.position) + tag
        case Status.QUEUED if job.attempts:
            return _("Download queued") + tag
        case Status.PROCESSING if progress and progress.share is not None:
            return f"{escape(_(progress.name), 100)}{tag}\n{bar(progress.share)}"
        case Status.DOWNLOADING if progress:
            return f"{_('Downloading')}{posted}{tag}\n{render_progress(job, progress)}"
        case Status.QUEUED | Status.DOWNLOADING:
            return _("Download started") + tag
        case Status.PROCESSING:
            return _("Making it fit") + tag
        case Status.UPLOADING:
            text = ngettext("Uploading {count} file", "Uploading {count} files", count)
            return text.format(count=count) + tag
        case Status.COMPLETED:
            took = format_time(job.finished_at - job.created_at)
            text = ngettext(
                "Done in {time}: {count} file", "Done in {time}: {count} files", count
            )
            return text.format(time=took, count=count) + tag
        case Status.CANCELLED:
            return _("Cancelled") + posted + tag
        case Status.FAILED:
            text = _("**Download failed** ({cause})").format(cause=_(str(job.cause)))
            return f"{text}{tag}\n{_(job.error)}"[:MAX_CONTENT]


def bar(share: float) -> str:
    """A bar of 16 blocks, and percent."""
    filled = round(share * 16)
    return f"`{'█' * filled}{'░' * (16 - filled)}` {share:.0%}"


def render_progress(job: Job, progress: Progress) -> str:
    """File name, bar, percent, speed and time left, as far as they are known."""
    facts = []
    if progress.total_bytes:
        facts.append(bar(min(progress.done_bytes / progress.total_bytes, 1)))
        text = _("{done} of {total}")
        done, total = map(format_size, (progress.done_bytes, progress.total_bytes))
        facts.append(text.format(done=done, total=total))
    else:
        facts.append(format_size(progress.done_bytes))
    if progress.speed_bytes_s:
        facts.append(f"{format_size(progress.speed_bytes_s)}/s")
        if progress.total_bytes:
            left = max(progress.total_bytes - progress.done_bytes, 0)
            left_s = left / progress.speed_bytes_s
            facts.append(_("{time} left").format(time=format_time(left_s)))
    name = hide(job, escape(progress.name, 100))
    if progress.items:
        text = _("{name} ({item} of {items})")
        name = text.format(name=name, item=progress.item, items=progress.items)
    return f"{name}\n{' · '.join(facts)}"
