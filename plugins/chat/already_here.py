"""Answers a link that was posted here before with a link to the post, lets requests join
a download under way, and finds kept files that can replace a download."""

import asyncio
import contextlib
import hashlib
import json
import re
import sqlite3
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, Self, TypeVar

import discord
from bossbot_plugins._commands import MEDIA_NEEDS, admit, cannot_post
from bossbot_plugins._jobs import (
    belongs_here,
    guild_id_of,
    may_be_post,
    message_link,
    place_of,
    unfinished,
)
from bossbot_plugins._kept import may_serve
from bossbot_plugins._links import without_tracking
from bossbot_plugins._messages import NONSENSE
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._shared import GATEWAY, Question, SharedQueue, shared_queue
from loguru import logger

from bossbot import (
    TERMINAL_STATUSES,
    Action,
    App,
    BossBot,
    Job,
    Message,
    OutOfReach,
    Platform,
    Post,
    Refused,
    Status,
    _,
    hookimpl,
    now,
)

# Options that change nothing about the files, or only how they are posted.
NOT_OF_THE_FILES = (
    *("again", "auto", "keep_subtitles", "kept", "language", "spoiler"),
)
OF_THE_ASKING = ("again", "auto", "kept")  # and not of the link
MAX_MEMBERS = 1000  # who ask, remembered until it is known what they get
MAX_RUNNING = 10_000  # links that are under way
MAX_LOOKED_AT = 3  # posts of one link, the newest first
MAX_KEPT = 50  # messages of jobs that may have its files
MAX_HISTORY = 100  # Discord, 2026-11: messages of one request
LOOK_S = 2.0  # for Discord's answers about messages and channels
ASK_S = LOOK_S + 1  # for the gateway to answer a worker
MAX_ASKED = 10  # questions of workers that the gateway looks at together
TOPIC = "already_here"  # of these questions
LOOK_BACK_S = 3600.0  # before the newest row, for older ones that are missing
PAGE = 200
JOB_ID = re.compile("[0-9a-f]{10}")
SWEEP_S = 3600.0

T = TypeVar("T")


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- The messages that links were posted in, one a row.
        CREATE TABLE already_here (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL,  -- of the job
            same TEXT NOT NULL,  -- hash of link, what was asked for, where; '': gone
            content TEXT NOT NULL,  -- hash of what makes the files
            guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
            user_id INTEGER NOT NULL, message_id INTEGER NOT NULL,
            posts TEXT NOT NULL,  -- the message as JSON, by which it is forgotten
            url TEXT NOT NULL, options TEXT NOT NULL, at_s REAL NOT NULL,
            shared INTEGER NOT NULL,  -- whether several members have asked for it
            UNIQUE (id, message_id)
        );
        CREATE INDEX already_here_by_link ON already_here (same, at_s);
        CREATE INDEX already_here_by_content ON already_here (content, at_s);
        CREATE INDEX already_here_by_message ON already_here (message_id);
        CREATE INDEX already_here_by_user ON already_here (user_id, guild_id);
        CREATE INDEX already_here_by_guild ON already_here (guild_id);
        CREATE INDEX already_here_by_time ON already_here (at_s) WHERE shared = 0;
        """,
        """
        -- Where short links led, which only their downloads find out.
        CREATE TABLE already_here_short (
            short TEXT PRIMARY KEY,  -- hash of the link
            leads_to TEXT NOT NULL,  -- normalised
            at_s REAL NOT NULL
        );
        CREATE INDEX already_here_short_by_time ON already_here_short (at_s);
        """,
    ]


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    return [AgainButton]


# ── What is the same ───────────────────────────────────────────────────────────────


class Keys(NamedTuple):
    """What two links have in common."""

    content: str  # if they bring the same files
    same: str  # if one answers the other


def keys_of(app: App, job: Job) -> Keys:
    """By the link, in any form, and by the options of the request."""
    platform = app.plugins.registered("platforms").get(job.platform)
    options = {
        name: value
        for name, value in job.options.items()
        if value and name not in NOT_OF_THE_FILES
    }
    if options.get("subtitles"):
        options["language"] = job.language
    if platform and not platform.thread_options:
        options.pop("thread", None)
    content = hashed(identity(platform, job.url), options)
    # A direct message is its member's own.
    place: Any = job.guild_id or [job.channel_id, job.user_id]
    how = [bool(job.options.get("spoiler")), is_restricted(app, job.channel_id)]
    return Keys(content, hashed(place, content, how))


def leads_to(job: Job) -> Job:
    """A job as if its member had pasted what the short link has led to."""
    return replace(job, url=job.facts.get("leads_to") or job.url)


async def led_before(app: App, job: Job) -> Job:
    """The same, by what an earlier download of the link has found out."""
    platform = app.plugins.registered("platforms").get(job.platform)
    if platform and platform.short and re.match(platform.short, job.url, re.IGNORECASE):
        sql = "SELECT leads_to FROM already_here_short WHERE short = ? AND at_s >= ?"
        row = await app.database.one(sql, hashed(job.url), oldest_s(app))
        return replace(job, url=row[0]) if row else job
    return job


def identity(platform: Platform | None, url: str) -> str:
    """What all links to a post have in common."""
    if platform is None:
        return without_tracking(url)
    try:
        return str(platform.identity(url))
    except Exception as error:  # the boundary of a plugin
        logger.warning(
            "platform {} does not recognise its own link: {!r}", platform.name, error
        )
        return url


def hashed(*values: Any) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def is_restricted(app: App, channel_id: int) -> bool:
    """Whether a channel is age-restricted: its posts are no answers elsewhere."""
    channel: Any = app.bot.get_channel(channel_id)
    return bool(channel and getattr(channel, "is_nsfw", bool)())


# ── The answer ─────────────────────────────────────────────────────────────────────

members: dict[str, Any] = {}  # who asks, by the command's or click's id
running: dict[str, tuple[str, int]] = {}  # job and channel, by what is the same
resolved: dict[str, str] = {}  # what short links of those are, by where they led


def remember(table: dict[str, Any], key: str, value: Any, most: int) -> None:
    table[key] = value
    if len(table) > most:
        del table[next(iter(table))]


def ended(job: Job) -> None:
    """It is not under way, or will never be."""
    if running.get(job.same, ("",))[0] == job.id:
        del running[job.same]
    for same in [same for same, short in resolved.items() if short == job.same]:
        del resolved[same]


@hookimpl
async def check_action(action: Action) -> None:
    """See docs/plugins.md; refuses nothing."""
    if action.group == "download" and not action.dry:
        remember(members, action.request, action.user, MAX_MEMBERS)


@hookimpl(trylast=True)  # an answer of the owner's own comes first
async def answer_job(job: Job, app: App) -> Message | None:
    if not job.channel_id or not app.has_gateway:
        return None
    own, led = keys_of(app, job), await led_before(app, job)
    content, same = own if led is job else keys_of(app, led)
    sql = "SELECT 1 FROM already_here WHERE same = ? OR content IN (?, ?) LIMIT 1"
    known = await app.database.one(sql, same, own.content, content)  # few links are
    again = job.options.get("again")
    if known and not again and (answer := await in_time(find(app, job, same))):
        return answer
    job.same = same = resolved.get(same, same)
    if job.same not in running:  # nothing else happens in between
        remember(running, job.same, (job.id, job.channel_id), MAX_RUNNING)
    channel_id = running[job.same][1]
    here = channel_id == job.channel_id
    if not here and not await in_time(can_open(app, job, channel_id)):
        job.same = f"{same} {job.channel_id}"  # joined only from there
    job.options.pop("kept", None)
    if known and (kept := await kept_job(app, job, [own.content, content])):
        job.options["kept"] = kept.id
    return None


async def in_time(look: Coroutine[Any, Any, T]) -> T | None:
    """What comes of asking Discord; None if that takes too long for an answer."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await look
    except TimeoutError:
        logger.info("Discord did not answer in time")
        return None


async def find(app: App, job: Job, same: str) -> Message | None:
    """Where a link was posted that its member can open, if it is still there."""
    if not (messages := await find_rows(app, job, same)):
        return None
    first = messages[0]
    link = message_link(job.guild_id, first["channel_id"], first["message_id"])
    text = _("That was already posted here {when}: {link}")
    view = discord.ui.View(timeout=None)
    view.add_item(AgainButton(first["id"]))
    shown = text.format(when=f"<t:{int(first['at_s'])}:R>", link=link)
    return Message(shown, view=view)


class Here(NamedTuple):
    """A post that answers a link."""

    job_id: str
    messages: list[tuple[int, int]]  # each one's id and channel, in order


@hookimpl(trylast=True)
async def find_posted(job: Job, app: App) -> Job | None:
    """For a short link, when it is known where it leads."""
    if not job.channel_id or job.options.get("again"):
        return None
    here, queue = None, shared_queue(app)
    if app.has_gateway:
        here = await find_here(app, job)
    elif queue:
        here = await ask_gateway(queue, job)
    if not here:
        return None
    posts = [
        Post(n, "", state="sent", message_id=message_id, channel_id=channel_id)
        for n, (message_id, channel_id) in enumerate(here.messages, 1)
    ]
    return replace(job, id=here.job_id, posts=posts)


async def find_here(app: App, job: Job) -> Here | None:
    """The posts of a short link's target, if everybody who waits for it can open
    them."""
    rows = await in_time(find_rows(app, job, keys_of(app, leads_to(job)).same))
    if not rows:
        return None
    async for other in unfinished(app, job.guild_id):
        if other.joins == job.id and other.channel_id != job.channel_id:
            return None  # whose member may not be able to open it
    return Here(rows[0]["id"], [(row["message_id"], row["channel_id"]) for row in rows])


# The gateway has the posts, and the members who can open them; a worker asks it.


async def ask_gateway(queue: SharedQueue, job: Job) -> Here | None:
    """The gateway's answer to ``find_here``; None also without one in time."""
    text = json.dumps([job.id, job.facts.get("leads_to")])
    try:
        async with asyncio.timeout(ASK_S):
            answer = await queue.ask(GATEWAY, TOPIC, text, ASK_S)
        return here_of(answer) if answer else None
    except (TimeoutError, OutOfReach) as error:
        logger.bind(job=job.id).info("the gateway does not answer: {!r}", error)
    except NONSENSE as error:
        logger.bind(job=job.id).warning("the gateway's answer is wrong: {}", error)
    return None


def here_of(answer: str) -> Here | None:
    """The content of an answer that anybody may have written. Raises one of ``NONSENSE``."""
    if not (told := json.loads(answer)):
        return None
    job_id, pairs = told
    if not JOB_ID.fullmatch(job_id) or not 0 < len(pairs) <= MAX_HISTORY:
        raise ValueError("it names no post")
    messages = [(message_id, channel_id) for message_id, channel_id in pairs]
    if any(type(n) is not int or not 0 < n < 2**63 for pair in messages for n in pair):
        raise ValueError("it names no messages")
    return Here(job_id, messages)


async def answer_workers(app: App) -> None:
    """Answer the workers' questions, as long as the bot runs."""
    if not (queue := shared_queue(app)):
        return
    room = asyncio.Semaphore(MAX_ASKED)
    async with asyncio.TaskGroup() as tasks:
        async for question in queue.questions(TOPIC):
            await room.acquire()
            task = tasks.create_task(answer_worker(app, question))
            task.add_done_callback(lambda _: room.release())


async def answer_worker(app: App, question: Question) -> None:
    here = None
    with contextlib.suppress(OutOfReach):  # then it posts the link
        with logger.catch(exclude=OutOfReach, message="a worker gets no answer"):
            if job := await asked_about(app, question.text):
                here = await find_here(app, job)
        await question.answer(json.dumps(here))


async def asked_about(app: App, text: str) -> Job | None:
    """The job of a question, with the target of its link; None for an impossible
    question."""
    with contextlib.suppress(Refused, *NONSENSE):
        job_id, led = json.loads(text)
        url, platform, _engine = app.router.route(led)
        job = await app.queue.get(job_id)
        if job and job.platform == platform:
            return replace(job, facts={**job.facts, "leads_to": url})
    return None


async def find_rows(app: App, job: Job, same: str) -> list[sqlite3.Row]:
    """The messages of such a post, in order."""
    rows = await app.database.all(
        "SELECT * FROM already_here WHERE same = ? AND at_s >= ? ORDER BY at_s DESC, id, "
        f"message_id LIMIT {MAX_HISTORY}",
        *(same, oldest_s(app)),
    )
    posts: dict[int, list[sqlite3.Row]] = {}  # by their first message
    by_job: dict[str, list[sqlite3.Row]] = {}
    for row in rows:
        by_job.setdefault(row["id"], []).append(row)
    for messages in by_job.values():
        posts.setdefault(messages[0]["message_id"], messages)
    for messages in list(posts.values())[:MAX_LOOKED_AT]:
        if not await can_open(app, job, messages[0]["channel_id"]):
            continue
        if await are_there(app, job.guild_id, messages):
            return messages
    return []


def oldest_s(app: App) -> float:
    """From when on a post counts: as long as its files are kept."""
    plugin = app.plugins.all.get("retention")
    keep_s = getattr(plugin.config, "completed_retention_s", 0) if plugin else 0
    return now() - keep_s if keep_s and plugin and not plugin.off else 0


async def are_there(app: App, guild_id: int, rows: list[sqlite3.Row]) -> bool:
    """Whether all messages of a post are there; asks Discord, once for each channel."""
    places: dict[int, set[int]] = {}  # an album may go on in a thread
    for row in rows:
        places.setdefault(row["channel_id"], set()).add(row["message_id"])
    gone = set[int]()
    try:
        for channel_id, wanted in places.items():
            gone |= wanted - await found_of(app, guild_id, channel_id, wanted)
    except UNREACHABLE as error:
        logger.info("a message cannot be looked up: {!r}", error)
        return False
    if gone:
        await note_deleted(app, gone)
    return not gone


async def found_of(
    app: App, guild_id: int, channel_id: int, wanted: set[int]
) -> set[int]:
    """The messages of a channel from the first one that is wanted on."""
    channel = app.bot.get_partial_messageable(channel_id, guild_id=guild_id or None)
    limit = 1 if len(wanted) == 1 else MAX_HISTORY
    after = discord.Object(min(wanted) - 1)
    try:
        return {m.id async for m in channel.history(limit=limit, after=after)}
    except discord.NotFound:  # nor is the channel
        return set()


async def can_open(app: App, job: Job, channel_id: int) -> bool:
    """Whether the member of a job can open a message in a channel of its server."""
    guild = app.bot.get_guild(job.guild_id)
    if guild is None:
        return channel_id == job.channel_id
    member = members.get(job.request_key.partition(":")[0])
    try:
        if member is None or member.id != job.user_id:
            member = guild.get_member(job.user_id)
            member = member or await guild.fetch_member(job.user_id)
        channel: Any = guild.get_channel_or_thread(channel_id)
        channel = channel or await guild.fetch_channel(channel_id)
        may = channel.permissions_for(member)
    except UNREACHABLE as error:
        logger.info("the channels of a member cannot be looked up: {!r}", error)
        return False
    closed = isinstance(channel, discord.Thread) and channel.is_private()
    inside = channel_id == job.channel_id or may.manage_threads or not closed
    return bool(may.view_channel and may.read_message_history and inside)


async def kept_job(app: App, job: Job, contents: Iterable[str]) -> Job | None:
    """An earlier job whose kept files can be posted for this one."""
    sql = (
        "SELECT id FROM already_here WHERE content = ? "
        f"ORDER BY at_s DESC LIMIT {MAX_KEPT}"
    )
    wanted = dict.fromkeys(contents)  # mostly one
    rows = [row for one in wanted for row in await app.database.all(sql, one)]
    ids = [*dict.fromkeys(row["id"] for row in rows)]
    jobs = await app.queue.find(ids)
    found = (jobs[one] for one in ids if one in jobs)
    return next((kept for kept in found if may_serve(kept, job)), None)


# ── What was posted ────────────────────────────────────────────────────────────────


@hookimpl
async def run(app: App) -> None:
    """Add the jobs that ended while the plugin was off; remove rows that are too old."""
    if app.queue.shared and not app.has_gateway:  # which does all that
        await sweep(app)
    async for job in unfinished(app):
        under_way(job)
    sql = "SELECT max(at_s) FROM already_here WHERE shared = 0"  # for these, by index
    newest = await app.database.one(sql)
    since = (newest[0] or 0) - LOOK_BACK_S if newest else 0
    page: list[Job] = []
    async for job in app.queue.ended(max(since, oldest_s(app), 0)):
        page.append(job)
        if len(page) == PAGE:
            await note(app, page)
            page = []
    await note(app, page)
    async with asyncio.TaskGroup() as tasks:
        if app.has_gateway:
            tasks.create_task(hear_of_deletions(app))
            tasks.create_task(answer_workers(app))
        tasks.create_task(sweep(app))


async def sweep(app: App) -> None:
    old = {
        "already_here": "number IN (SELECT number FROM already_here "
        f"WHERE shared = 0 AND at_s < ? LIMIT {PAGE})",
        "already_here_short": "short IN (SELECT short FROM already_here_short "
        f"WHERE at_s < ? LIMIT {PAGE})",
    }
    while True:
        with logger.catch(message="old rows of what is here could not be removed"):
            for table, where in old.items():
                sql = f"DELETE FROM {table} WHERE {where} RETURNING 1"
                while len(await app.database.all(sql, oldest_s(app))) == PAGE:
                    await asyncio.sleep(0)
        await asyncio.sleep(SWEEP_S)


@hookimpl(tryfirst=True)  # before a job that is to be forgotten is
async def job_changed(job: Job, app: App) -> None:
    if job.status not in TERMINAL_STATUSES:
        under_way(job)
        return
    ended(job)
    await note(app, [job])


@hookimpl
async def job_refused(job: Job) -> None:
    ended(job)


def under_way(job: Job) -> None:
    if job.same and not job.joins:
        remember(running, job.same, (job.id, job.channel_id), MAX_RUNNING)


@hookimpl
async def job_progressed(job: Job, app: App) -> None:
    """Let requests for a short link's target join its job."""
    if "leads_to" in job.facts and running.get(job.same, ("",))[0] == job.id:
        same = keys_of(app, leads_to(job)).same
        if same not in running:
            remember(resolved, same, job.same, MAX_RUNNING)


async def note(app: App, jobs: Iterable[Job]) -> None:
    """Record the posts of jobs; twice does no harm."""
    rows, short = list[dict[str, Any]](), list[tuple[str, str, float]]()
    for job in jobs:
        rows += rows_of(app, job)
        if led := job.facts.get("leads_to"):
            short.append((hashed(job.url), led, job.finished_at))
    if not rows:
        return
    names, marks = ", ".join(rows[0]), ", ".join(f":{name}" for name in rows[0])
    add = f"INSERT OR IGNORE INTO already_here ({names}) VALUES ({marks})"
    others = "WHERE message_id = :message_id AND id != :id"
    share = f"UPDATE already_here SET shared = 1 {others} RETURNING 1"
    learn = "INSERT OR REPLACE INTO already_here_short VALUES (?, ?, ?)"

    def insert(database: sqlite3.Connection) -> None:
        for row in rows:
            shared = bool(database.execute(share, row).fetchall())
            database.execute(add, {**row, "shared": int(shared or row["shared"])})
        database.executemany(learn, short)

    await app.database.run(insert)


def rows_of(app: App, job: Job) -> Iterable[dict[str, Any]]:
    """A row for each message of a job that answers others, or has joined one."""
    sent = [post for post in job.posts if post.state == "sent" and post.message_id]
    # Where something was lost, the next try may bring more.
    whole = job.status is Status.COMPLETED and not job.facts.get("lost")
    if not sent or not job.same or not (whole or job.joins):
        return
    # By the link as it was asked for: no child has a say in what files another link
    # brings.
    content, same = keys_of(app, job).content, same_of(app, job) if whole else ""
    options = {n: v for n, v in job.options.items() if n not in OF_THE_ASKING}
    for post in sent:
        channel_id = place_of(job, post)
        message = {"message_id": post.message_id, "channel_id": channel_id}
        yield {
            "id": job.id,
            "same": same,
            "content": content,
            "guild_id": job.guild_id,
            "channel_id": channel_id,
            "user_id": job.user_id,
            "message_id": post.message_id,
            "posts": json.dumps([message]),
            "url": job.url.encode("utf-8", "replace").decode(),
            "options": json.dumps(options, default=str),
            "at_s": job.finished_at,
            "shared": int(bool(job.joins)),
        }


def same_of(app: App, job: Job) -> str:
    """By what an ended job answers others."""
    if job.guild_id and app.bot.get_channel(job.channel_id) is None:
        return job.same.partition(" ")[0]  # as it was then
    return keys_of(app, leads_to(job)).same


async def note_deleted(app: App, message_ids: Iterable[int]) -> None:
    """A post of which a message is gone answers nothing any more."""
    await app.database.all(
        "UPDATE already_here SET same = '' WHERE id IN (SELECT id FROM already_here "
        "WHERE message_id IN (SELECT value FROM json_each(?)))",
        json.dumps([*message_ids]),
    )


async def hear_of_deletions(app: App) -> None:
    """Note the messages that are deleted. What this misses, Discord is asked about."""

    async def one(event: discord.RawMessageDeleteEvent) -> None:
        if may_be_post(event):
            await note_deleted(app, [event.message_id])

    async def several(event: discord.RawBulkMessageDeleteEvent) -> None:
        await note_deleted(app, event.message_ids)

    listeners: dict[str, Any] = {
        "on_raw_message_delete": one,
        "on_raw_bulk_message_delete": several,
    }
    for name, listener in listeners.items():
        app.bot.add_listener(listener, name)
    try:
        await asyncio.Event().wait()
    finally:
        for name, listener in listeners.items():
            app.bot.remove_listener(listener, name)


# ── Post again ─────────────────────────────────────────────────────────────────────


class AgainButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"here:again:(?P<id>[0-9a-f]{10})",
):
    """Takes the link of a job again, for the member who clicks, in that channel."""

    def __init__(self, job_id: str) -> None:
        custom_id = f"here:again:{job_id}"
        super().__init__(discord.ui.Button(label=_("Post again"), custom_id=custom_id))
        self.job_id = job_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(match["id"])

    async def callback(self, interaction: discord.Interaction) -> None:
        bot: Any = interaction.client
        app: App = bot.app
        action = await admit(
            interaction, "download", group="download", needs=MEDIA_NEEDS
        )
        if cannot := cannot_post(interaction.channel):
            raise Refused(cannot)
        url, options = await self.asked_for(app, interaction)
        await interaction.response.defer()
        accepted = await app.intake(
            Job(
                url=url,
                guild_id=guild_id_of(interaction),
                channel_id=action.channel.id,
                user_id=interaction.user.id,
                request_key=f"{interaction.id}:0",
                options={**options, "again": True},
                priority=action.priority,
            )
        )
        if accepted and accepted.answer:
            await interaction.followup.send(accepted.answer, ephemeral=True)

    async def asked_for(
        self, app: App, interaction: discord.Interaction
    ) -> tuple[str, dict[str, Any]]:
        """The link, and the options of its request."""
        job = await app.queue.get(self.job_id)
        if job and belongs_here(interaction, job):
            options = job.options.items()
            return job.url, {n: v for n, v in options if n not in OF_THE_ASKING}
        row = await app.database.one(
            "SELECT * FROM already_here WHERE id = ? LIMIT 1", self.job_id
        )
        here = (guild_id_of(interaction), interaction.user.id)
        if (
            row
            and row["guild_id"] == here[0]
            and (here[0] or row["user_id"] == here[1])
        ):
            return row["url"], json.loads(row["options"])
        raise Refused(_("There is no record of that download any more."))
