"""Links to an earlier post under a new one that looks the same, such as the same video
in another size, from another site. Only where a server wants that."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import discord
from bossbot_plugins._alike import ALIKE, Look, distance, look_at, read_look
from bossbot_plugins._archive import Query, archive_of
from bossbot_plugins._bench import JobBench
from bossbot_plugins._jobs import may_be_post, message_link, place_of
from bossbot_plugins._messages import NONSENSE
from bossbot_plugins._nonce import nonce
from bossbot_plugins._readable import readable_channels
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._shared import is_elsewhere, shared_queue
from loguru import logger
from pydantic import Field

import bossbot
from bossbot import (
    App,
    Job,
    JobFailed,
    OutOfReach,
    PluginConfig,
    Post,
    Refused,
    Status,
    _,
    hookimpl,
    in_thread,
    now,
)

WITHIN_S = 90 * 86400.0
SAME = 0.04  # of the bits; up to ``ALIKE`` the texts have to be alike, too
MAX_FILES = 10  # of a post that are looked at
MAX_COMPARED = 5000  # files of a server, the newest
MAX_MESSAGES = 3  # earlier ones of which Discord is asked whether they are there
MAX_WAITING = 100  # posts of a machine
MAX_LIKE = 25
REST_S = 120.0
LOOK_S = 60.0  # for all files of a post
ASK_S = REST_S + LOOK_S + 10  # for a worker to say what its files look like
TOPIC = "similar_notice"  # of that question
NUMBER = 999  # of the notice, among a job's messages


class GuildConfig(PluginConfig):
    """[similar_notice] of a server."""

    similar_notice: bool = Field(
        False, description="name an earlier post under a new one that looks the same"
    )


class Earlier(NamedTuple):
    """A post that was looked at before."""

    distance: float
    job_id: str
    channel_id: int
    message_id: int
    at_s: float


@hookimpl
def register_tables() -> list[str]:
    return [
        """
        -- What posted files look like, one a row.
        CREATE TABLE similar_notice (
            number INTEGER PRIMARY KEY, job_id TEXT NOT NULL,
            guild_id INTEGER NOT NULL, channel_id INTEGER NOT NULL,
            user_id INTEGER NOT NULL, message_id INTEGER NOT NULL,
            look TEXT NOT NULL,  -- see _alike.py
            posts TEXT NOT NULL,  -- the notice, by which it is deleted with the rest
            at_s REAL NOT NULL
        );
        CREATE INDEX similar_notice_by_guild ON similar_notice (guild_id, at_s);
        CREATE INDEX similar_notice_by_user ON similar_notice (user_id, guild_id);
        CREATE INDEX similar_notice_by_job ON similar_notice (job_id);
        CREATE INDEX similar_notice_by_message ON similar_notice (message_id);
        CREATE INDEX similar_notice_by_time ON similar_notice (at_s);
        """
    ]


posted: asyncio.Queue[Job] | None = None  # waiting for a look


@hookimpl
async def run(app: App) -> None:
    """Look at posts after they were sent, so that none is delayed."""
    global posted
    if not app.has_gateway:
        await answer_gateway(app)
        return
    posted = asyncio.Queue(MAX_WAITING)
    listeners: dict[str, Any] = {
        name: partial(hear, app) for name, hear in DELETIONS.items()
    }
    for name, listener in listeners.items():
        app.bot.add_listener(listener, name)
    lines = dict[str, deque[Job]]()  # one of each machine, which has the files
    try:
        async with asyncio.TaskGroup() as tasks:
            while True:
                job = await posted.get()
                place = job.worker if is_elsewhere(app, job) else ""
                if place not in lines:
                    lines[place] = deque(maxlen=MAX_WAITING)
                    tasks.create_task(look_at_all(app, lines, place))
                lines[place].append(job)
    finally:
        for name, listener in listeners.items():
            app.bot.remove_listener(listener, name)


@hookimpl
async def job_changed(job: Job, guild: GuildConfig) -> None:
    wanted = guild.similar_notice and not job.joins
    again = job.options.get("again")  # a member who clicks has seen it
    if posted and wanted and not again and job.status is Status.COMPLETED:
        with contextlib.suppress(asyncio.QueueFull):
            posted.put_nowait(job)


async def look_at_all(app: App, lines: dict[str, deque[Job]], place: str) -> None:
    """Look at the posts of one machine, one after the other."""
    while lines[place]:
        job = lines[place].popleft()
        bossbot.language.set(job.language)
        with logger.catch(message="posts could not be compared"):
            await look(app, job)
    del lines[place]


async def rest(app: App) -> None:
    """Wait a while for downloads to end: they come first."""
    end_s = now() + REST_S
    while app.runner.downloads() and now() < end_s:
        await asyncio.sleep(0.5)


async def look(app: App, job: Job) -> None:
    """Compare a post with earlier ones, remember it, and link to a similar one."""
    sent = [post for post in job.posts if post.state == "sent" and post.message_id]
    guild = app.bot.get_guild(job.guild_id)
    channel = guild and sent and guild.get_channel_or_thread(place_of(job, sent[0]))
    sql = "SELECT 1 FROM similar_notice WHERE job_id = ?"
    if not guild or not channel or await app.database.one(sql, job.id):
        return
    if is_elsewhere(app, job):
        seen = await ask_for_looks(app, job)
    else:
        seen = await looks_of(app, job)
    posts = {name: post for post in sent for name in post.files}
    looks = [(posts[name], one) for name, one in seen if name in posts][:MAX_FILES]
    channels = readable_channels(guild, guild.me, channel, public=True)
    earlier = await alike(app, job, [one for _post, one in looks])
    await remember(app, job, looks)
    earlier = [one for one in earlier if place_in(guild, one.channel_id) in channels]
    if any(one.distance > SAME for one in earlier):
        same = await same_in_words(app, job, channels)
        earlier = [e for e in earlier if e.distance <= SAME or e.job_id in same]
    for one in earlier[:MAX_MESSAGES]:
        if await is_there(app, guild, one):
            await tell(app, job, sent[0], one)
            return


# ── What it looks like ─────────────────────────────────────────────────────────────


async def looks_of(app: App, job: Job) -> list[tuple[str, Look]]:
    """The looks of the first files of a post, with their names."""
    await rest(app)
    names = [name for post in job.posts if post.state == "sent" for name in post.files]
    found = []
    async with asyncio.timeout(LOOK_S):
        try:
            files = await app.storage.kept_files(job, names[:MAX_FILES])
        except OSError:  # nothing is kept here
            return []
        folder = await app.storage.attempt_folder(job)
        try:
            bench = JobBench(app, job, folder / "files", lambda progress: None)
            for file in files:
                with contextlib.suppress(JobFailed):
                    if seen := await look_at(bench, file):
                        found.append((file.name, seen))
        finally:
            await app.storage.forget_attempt(job)
    return found


async def ask_for_looks(app: App, job: Job) -> list[tuple[str, Look]]:
    """The same for a post whose files another machine has; [] without its answer."""
    queue = shared_queue(app)
    with contextlib.suppress(OutOfReach):
        if queue and (said := await queue.ask(job.worker, TOPIC, job.id, ASK_S)):
            try:
                return [(str(name), read_look(text)) for name, text in json.loads(said)]
            except NONSENSE as error:  # anybody may have written it
                logger.bind(job=job.id).warning("no answer of a worker: {!r}", error)
    return []


async def answer_gateway(app: App) -> None:
    """Send the gateway the looks of this machine's files, as long as the bot runs."""
    if not (queue := shared_queue(app)):
        return
    async for question in queue.questions(TOPIC):
        looks = list[tuple[str, str]]()
        with contextlib.suppress(OutOfReach):  # it does without
            with logger.catch(exclude=OutOfReach, message="files are not compared"):
                job = await queue.get(question.text)
                ended = job and job.status is Status.COMPLETED
                if job and ended and not is_elsewhere(app, job):
                    looks = [(name, str(one)) for name, one in await looks_of(app, job)]
            await question.answer(json.dumps(looks))


async def alike(app: App, job: Job, looks: Sequence[Look]) -> list[Earlier]:
    """The earlier posts of a server that look like one of these, the nearest first."""
    if not looks:
        return []
    rows = await app.database.all(
        "SELECT job_id, channel_id, message_id, at_s, look FROM similar_notice "
        "WHERE guild_id = ? AND at_s > ? ORDER BY at_s DESC LIMIT ?",
        *(job.guild_id, now() - WITHIN_S, MAX_COMPARED),
    )
    return await in_thread(partial(compared, rows, looks))  # type: ignore[no-any-return]


def compared(rows: Iterable[Any], looks: Sequence[Look]) -> list[Earlier]:
    found = []
    for job_id, channel_id, message_id, at_s, text in rows:
        nearest = min(distance(read_look(text), one) for one in looks)
        if nearest <= ALIKE:
            found.append(Earlier(nearest, job_id, channel_id, message_id, at_s))
    return sorted(found)


async def remember(app: App, job: Job, looks: Iterable[tuple[Post, Look]]) -> None:
    old = "DELETE FROM similar_notice WHERE at_s < ? OR at_s > ?"
    await app.database.all(old, now() - WITHIN_S, now() + 86400)
    rows = [
        (
            *(job.id, job.guild_id, place_of(job, post), job.user_id),
            *(post.message_id, str(one), now()),
        )
        for post, one in looks
    ]
    sql = (
        "INSERT INTO similar_notice (job_id, guild_id, channel_id, user_id, message_id, "
        "look, posts, at_s) VALUES (?, ?, ?, ?, ?, ?, '[]', ?)"
    )
    await app.database.run(lambda db: db.executemany(sql, rows))


async def same_in_words(app: App, job: Job, channels: Collection[int]) -> set[str]:
    """The jobs whose posts say what this one says, as far as the archive has it."""
    query = Query(
        like=job.id,
        guild_id=job.guild_id,
        channels=channels,
        since=now() - WITHIN_S,
    )
    try:
        hits = await archive_of(app).search(query, limit=MAX_LIKE)
    except Refused:
        return set()
    return {hit.job_id for hit in hits if hit.sure}


# ── The notice ─────────────────────────────────────────────────────────────────────


def place_in(guild: discord.Guild, channel_id: int) -> int:
    """The channel whose readers may read a message; 0 if that is not known."""
    channel = guild.get_channel_or_thread(channel_id)
    if isinstance(channel, discord.Thread) and not channel.is_private():
        return channel.parent_id
    return channel.id if channel else 0


async def is_there(app: App, guild: discord.Guild, earlier: Earlier) -> bool:
    """Whether Discord still has a message."""
    channel = app.bot.get_partial_messageable(earlier.channel_id, guild_id=guild.id)
    try:
        await channel.fetch_message(earlier.message_id)
    except discord.NotFound:
        await forget(app, "message_id", [earlier.message_id])
        return False
    except UNREACHABLE:
        return False
    return True


async def tell(app: App, job: Job, post: Post, earlier: Earlier) -> None:
    """Answer a post with where it is already."""
    link = message_link(job.guild_id, earlier.channel_id, earlier.message_id)
    text = _("Something like this was posted {when}: {link}")
    shown = text.format(when=f"<t:{int(earlier.at_s)}:R>", link=link)
    place = place_of(job, post)
    channel = app.bot.get_partial_messageable(place, guild_id=job.guild_id)
    reference = discord.MessageReference(
        message_id=post.message_id, channel_id=place, guild_id=job.guild_id
    )
    try:
        notice = await channel.send(
            f"-# {shown}",
            reference=reference,
            mention_author=False,
            nonce=nonce(job, NUMBER),
        )
    except UNREACHABLE as error:  # the post is gone, or nobody may write there
        logger.bind(job=job.id).info("no link to a similar post: {!r}", error)
        return
    message = {"message_id": notice.id, "channel_id": place}
    await app.database.all(
        "UPDATE similar_notice SET posts = ? WHERE job_id = ?",
        *(json.dumps([message]), job.id),
    )


async def forget_one(app: App, event: discord.RawMessageDeleteEvent) -> None:
    if may_be_post(event):
        await forget(app, "message_id", [event.message_id])


async def forget_several(app: App, event: discord.RawBulkMessageDeleteEvent) -> None:
    await forget(app, "message_id", event.message_ids)


async def forget_guild(app: App, guild: discord.Guild) -> None:
    await forget(app, "guild_id", [guild.id])


async def forget(app: App, column: str, ids: Iterable[int]) -> None:
    await app.database.all(
        f"DELETE FROM similar_notice WHERE {column} IN (SELECT value FROM json_each(?))",
        json.dumps([*ids]),
    )


# Discord's events about deleted things.
DELETIONS: dict[str, Any] = {
    "on_raw_message_delete": forget_one,
    "on_raw_bulk_message_delete": forget_several,
    "on_guild_remove": forget_guild,
}
