"""Posts a job's files to its Discord channel, each exactly once as far as can be."""

import asyncio
import copy
import json
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import aiohttp
import discord
from loguru import logger

from bossbot import (
    Cause,
    Courier,
    Download,
    Job,
    JobFailed,
    MediaFile,
    Message,
    Pipeline,
    Refused,
    escape,
    format_size,
    format_time,
    hookimpl,
    now,
    public_url,
)

MAX_FILES = 10  # Discord, 2026-11: attachments of one message
MAX_MESSAGE_BYTES = 25 * 2**20  # Discord, 2026-11: about what one request may carry
MAX_CONTENT = 2000  # characters
MAX_EMBED = 6000  # Discord, 2026-11: characters of all its texts together
PING_AFTER_S = 60  # who waited longer is told by a ping
# A nonce makes a resend harmless for "the past few minutes"; we trust it this long.
NONCE_WINDOW_S = 60
HISTORY_SLACK_S = 3600  # how far our clock may be from Discord's
SEND_TRIES = 5
RETRY_WAIT_S = 1.0  # at most, before the second try; twice as long before each next
SEND_TIMEOUT_S = 60.0  # of one try, and a second for each 64 KiB
WRITE_WAIT_S = 5.0  # before what could not be stored is written again
MISTAKES = (AttributeError, TypeError, ValueError)
SMALLER_LIMITS = [n * 2**20 for n in (100, 50, 25, 20, 10, 8, 4, 2, 1)]  # after a 413


@hookimpl(trylast=True)  # any other courier is there because the host wants it
def register_courier(pipeline: Pipeline) -> Courier:
    return DiscordCourier(pipeline)


class _Oversize(Exception):
    """Discord answered 413."""


class DiscordCourier:
    """The ``Courier`` to Discord: what is posted is frozen first, then each message is
    sent with a nonce of its own, so that a crash posts nothing twice."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.bot = pipeline.bot
        self.pipeline = pipeline
        self.db = pipeline.db

    async def _channel(self, job: Job) -> Any:
        """The channel of a job; raises JobFailed when it is gone or closed to us."""
        channel = self.bot.get_channel(job.channel_id)
        if channel is None:  # the servers come one by one after a start
            await self.bot.wait_until_ready()
            channel = self.bot.get_channel(job.channel_id)
        if channel:
            return channel
        return await self._insist(job, partial(self.bot.fetch_channel, job.channel_id))

    async def _insist(self, job: Job, work: Callable[[], Awaitable[Any]]) -> Any:
        """What ``work`` returns; done again while Discord is out of reach, which
        discord.py does for a few answers only.

        Raises:
            JobFailed: Discord refuses, or stays out of reach.
            _Oversize: it answered 413.
        """
        for attempt in range(SEND_TRIES):
            if attempt:
                await asyncio.sleep(
                    random.uniform(0, RETRY_WAIT_S * 2 ** (attempt - 1))
                )
            try:
                return await work()
            except discord.RateLimited as error:
                await asyncio.sleep(error.retry_after)
                reason: Exception = error
            except discord.HTTPException as error:
                if error.status == 413 or error.code == 40005:
                    raise _Oversize from error
                if error.status < 500 and error.status != 429:
                    raise _refusal(error) from error
                reason = error
            except (OSError, aiohttp.ClientError) as error:  # a TimeoutError, too
                reason = error
            logger.bind(job=job.id).info("Discord is out of reach: {!r}", reason)
        raise JobFailed(
            Cause.NETWORK,
            f"not posted: {reason!r}",
            "Discord did not take the files. Try again later.",
        )

    async def _limit(self, guild: discord.Guild | None) -> int:
        """The most bytes of one file that a guild takes; learnt from 413 answers, too."""
        settings = self.pipeline.settings
        tier = guild.premium_tier if guild else 0
        limit = min(settings.upload_limits[tier], settings.max_file_size)
        learnt = await self.db.fact(f"limit:{guild.id if guild else 0}:{tier}")
        return min(limit, int(learnt or limit))

    async def freeze(self, job: Job, files: list[MediaFile], facts: Download) -> None:
        """Store the messages to be sent: files in order, as many as fit in each.

        Raises:
            JobFailed: when every file is too large for the channel.
        """
        channel = await self._channel(job)
        limit = await self._limit(getattr(channel, "guild", None))
        notes = []
        lost, total = len(facts.failures), len(files) + len(facts.failures)
        if lost:
            causes = {failure.cause.replace("_", " ") for failure in facts.failures}
            reason = ", ".join(sorted(causes))
            notes.append(
                f"{total - lost} of {total}, {lost} could not be fetched ({reason})."
            )
        items = facts.facts.get("items")
        if facts.facts.get("more") or (items or 0) > total:
            of = f" of {items}" if items else "; there are more"
            notes.append(f"The first {total}{of}.")
        text = str(facts.facts.get("text") or "") if not files else ""
        fitting, more = await self._fit(job, files, limit)
        title, uploader = (
            escape(str(facts.facts.get(key) or "")) for key in ("title", "uploader")
        )
        lines = [" · ".join(filter(None, (title, uploader)))] if fitting else []
        lines += [f"> {escape(text, 1200)}"] if text else []
        lines += [
            *notes,
            *more,
            f"<{public_url(job)}>" if len(public_url(job)) < 500 else "",
        ]
        parts = split_parts(fitting) or [[]]
        heads = ["\n".join(filter(None, [heading(job, fitting), *lines]))]
        heads += [f"({number}/{len(parts)})" for number in range(2, len(parts) + 1)]
        await self._store(job, parts, heads)

    async def _fit(
        self, job: Job, files: Sequence[MediaFile], limit: int, posted: int = 0
    ) -> tuple[list[MediaFile], list[str]]:
        """The files that fit the channel, and a line for each that does not; sets the
        job's figures to what is posted, ``posted`` files included.

        Raises:
            JobFailed: nothing is left to post.
        """
        fitting = [file for file in files if file.size <= limit]
        notes, delivered = [], bool(posted)
        for file in [file for file in files if file.size > limit]:
            link = await self.pipeline.plugins.call_first(
                "deliver_file", job=job, file=file
            )
            delivered = delivered or bool(link)
            notes.append(
                str(link)
                if link
                else f"Too large for this channel: {file.name} is "
                f"{format_size(file.size)}, the limit is {format_size(limit)}."
            )
        if files and not fitting and not delivered:
            source = (
                f"\nSource: <{public_url(job)}>" if len(public_url(job)) < 500 else ""
            )
            raise JobFailed(Cause.TOO_LARGE, message="\n".join(notes)[:1300] + source)
        job.total_bytes -= sum(file.size for file in files if file.size > limit)
        job.file_count = posted + len(fitting)
        return fitting, notes

    async def _store(
        self, job: Job, parts: Sequence[Sequence[MediaFile]], contents: Sequence[str]
    ) -> None:
        """Put these parts in the place of those that are not sent yet."""
        async with self.db.transaction() as connection:
            await connection.execute(
                "DELETE FROM parts WHERE job_id = ? AND state = 'waiting'", (job.id,)
            )
            for part, content in zip(parts, contents, strict=True):
                files = json.dumps({file.name: file.sha256 for file in part})
                await connection.execute(
                    "INSERT INTO parts (job_id, number, files, content, state) SELECT "
                    ":job, coalesce(max(number), 0) + 1, :files, :content, 'waiting' "
                    "FROM parts WHERE job_id = :job",
                    {"job": job.id, "files": files, "content": content[:MAX_CONTENT]},
                )

    async def post(self, job: Job) -> None:
        """Send every message that is not sent yet, in order.

        Raises:
            JobFailed: permission lost, a file gone, Discord out of reach.
        """
        channel = await self._channel(job)
        if stored := await self.pipeline.queue.get(job.id):  # set while it downloaded
            job.status_message_id = stored.status_message_id
        while row := await self.db.one(
            "SELECT * FROM parts WHERE job_id = ? AND state IN ('waiting', 'sending') "
            "ORDER BY number LIMIT 1",
            job.id,
        ):
            try:
                await self._send_part(job, channel, row, await self._files(job, row))
            except _Oversize:
                await self._step_down(job, channel, row)

    async def _files(self, job: Job, row: sqlite3.Row) -> list[MediaFile]:
        """The files of a part, as they were frozen; raises JobFailed when they are
        not so any more."""
        frozen: dict[str, str] = json.loads(row["files"])
        try:
            files = await asyncio.to_thread(
                self.pipeline.storage.kept_files, job, list(frozen)
            )
        except FileNotFoundError as error:
            raise JobFailed(Cause.INTERNAL, f"a kept file is gone: {error}") from None
        if [file.sha256 for file in files] != list(frozen.values()):
            raise JobFailed(Cause.INTERNAL, "a kept file has changed")
        return files

    async def _send_part(
        self, job: Job, channel: Any, row: sqlite3.Row, files: list[MediaFile]
    ) -> None:
        plugins = self.pipeline.plugins
        try:
            await plugins.call("check_upload", job=job, files=files, channel=channel)
        except Refused as error:
            raise JobFailed(Cause.PERMISSION, message=str(error)) from error
        plain = Message(row["content"])
        decorated: Message = await plugins.fold(
            "decorate_message", "message", job=job, message=Message(row["content"])
        )
        first_s = row["sending_at"]

        async def attempt() -> int:
            nonlocal first_s
            # Past the nonce's window only the channel can tell what has arrived.
            if first_s and not 0 <= now() - first_s < NONCE_WINDOW_S:
                if found := await self._find_sent(job, channel, row):
                    return found
                first_s = 0
            if not first_s:
                first_s = now()
                await self._write(
                    "UPDATE parts SET state = 'sending', sending_at = ?, channel_id = ? "
                    "WHERE job_id = ? AND number = ?",
                    *(first_s, job.channel_id, job.id, row["number"]),
                )
            try:
                return await self._send_once(job, channel, row, files, decorated)
            # What plugins added may be no embed at all, or none that Discord takes.
            except (discord.HTTPException, *MISTAKES) as error:
                if getattr(error, "status", 400) != 400 or decorated == plain:
                    raise
                logger.warning("what plugins added cannot be sent: {!r}", error)
                return await self._send_once(job, channel, row, files, plain)

        await self._write(
            "UPDATE parts SET state = 'sent', message_id = ? "
            "WHERE job_id = ? AND number = ?",
            *(await self._insist(job, attempt), job.id, row["number"]),
        )

    async def _write(self, sql: str, *values: Any) -> None:
        """Write how far the posting is even when it takes a while: a full disk."""
        while True:
            try:
                await self.db.all(sql, *values)
                return
            except sqlite3.OperationalError as error:
                logger.error("the posting cannot be stored: {}", error)
                await asyncio.sleep(WRITE_WAIT_S)

    async def _send_once(
        self,
        job: Job,
        channel: Any,
        row: sqlite3.Row,
        files: list[MediaFile],
        message: Message,
    ) -> int:
        """One try; returns the message's id."""
        embed = message.embed and clip_embed(message.embed)
        options: dict[str, Any] = {
            key: value
            for key, value in (("embed", embed), ("view", message.view))
            if value is not None
        }
        if request := job.message_id or job.status_message_id:
            options["reference"] = discord.MessageReference(
                message_id=request, channel_id=job.channel_id, fail_if_not_exists=False
            )
        pinged = [discord.Object(job.user_id)] if message.content[:2] == "<@" else []
        async with asyncio.timeout(SEND_TIMEOUT_S + sum(f.size for f in files) / 65536):
            sent = await channel.send(
                message.content[:MAX_CONTENT],
                files=[discord.File(file.path, file.name) for file in files],
                nonce=f"{job.id}-{row['number']}",
                allowed_mentions=discord.AllowedMentions(
                    everyone=False, roles=False, users=pinged, replied_user=False
                ),
                **options,
            )
        return int(sent.id)

    async def _find_sent(self, job: Job, channel: Any, row: sqlite3.Row) -> int:
        """Our message with this part, by its file names; 0 when there is none."""
        names = list(json.loads(row["files"]))
        head = row["content"].partition("\n")[0]
        request = job.message_id or job.status_message_id
        if not request:
            since = datetime.fromtimestamp(row["sending_at"] - HISTORY_SLACK_S, UTC)
        after = discord.Object(request or discord.utils.time_snowflake(since))
        async for message in channel.history(
            limit=2000, after=after, oldest_first=True
        ):
            answered = message.reference.message_id if message.reference else 0
            if (
                message.author == self.bot.user
                and [attachment.filename for attachment in message.attachments] == names
                and (names or (head in message.content and answered == request))
            ):
                return int(message.id)
        return 0

    async def _step_down(self, job: Job, channel: Any, row: sqlite3.Row) -> None:
        """After a 413: send files apart that went together; one that went alone is
        over the guild's limit, which is lowered and remembered."""
        rows = await self.db.all("SELECT * FROM parts WHERE job_id = ?", job.id)
        rest = [one for one in rows if one["state"] in ("waiting", "sending")]
        files = [file for one in rest for file in await self._files(job, one)]
        if not files:
            raise JobFailed(Cause.TOO_LARGE, "413 for a text")
        alone, notes = await self._files(job, row), list[str]()
        if len(alone) > 1:
            parts = [[file] for file in alone]
            parts += split_parts(files[len(alone) :])
        else:
            guild = getattr(channel, "guild", None)
            limit = min(await self._limit(guild), max(file.size for file in files))
            limit = next((size for size in SMALLER_LIMITS if size < limit), 0)
            key = (
                f"limit:{guild.id if guild else 0}:{guild.premium_tier if guild else 0}"
            )
            await self.db.fact(key, str(limit))
            logger.warning("Discord takes less here: {} now {} bytes", guild, limit)
            sent = sum(
                len(json.loads(one["files"])) for one in rows if one["state"] == "sent"
            )
            fitting, notes = await self._fit(job, files, limit, sent)
            files, parts = fitting, split_parts(fitting) or [[]]
        lines = []
        if all(one["state"] != "sent" for one in rows):  # this one says what it is
            lines = [heading(job, files), *row["content"].split("\n")[1:]]
        contents = ["\n".join([*lines, *notes]), *[""] * (len(parts) - 1)]
        await self.db.all(
            "UPDATE parts SET state = 'dropped' WHERE job_id = ? AND number = ?",
            *(job.id, row["number"]),
        )
        await self._store(job, parts, contents)


def heading(job: Job, files: Sequence[MediaFile]) -> str:
    """The first line of the message with the files. It pings who waited for long."""
    size = format_size(sum(file.size for file in files))
    count = f"{len(files)} file{'s' * (len(files) != 1)}, {size}, " if files else ""
    took_s = now() - job.created_at
    ping = f"<@{job.user_id}> " if took_s > PING_AFTER_S else ""
    return f"{ping}**Download complete**: {count}{format_time(took_s)}"


def clip_embed(embed: discord.Embed) -> discord.Embed:
    """A copy within Discord's limits: texts are cut, and fields that are too many, or
    over what all texts may hold together, are left out."""
    data: dict[str, Any] = copy.deepcopy({**embed.to_dict()})
    room = MAX_EMBED

    def cut(table: dict[str, Any], key: str, limit: int) -> None:
        nonlocal room
        if text := str(table.get(key) or ""):
            table[key] = text if len(text) <= limit else text[: limit - 1] + "…"
            room -= len(table[key])

    cut(data, "title", 256)
    cut(data.get("author", {}), "name", 256)
    cut(data.get("footer", {}), "text", 2048)
    cut(data, "description", min(4096, room))
    fields, data["fields"] = data.get("fields", [])[:25], []
    for field in fields:
        cut(field, "name", 256)
        cut(field, "value", 1024)
        if room >= 0:
            data["fields"].append(field)
    return discord.Embed.from_dict(data)


def _refusal(error: discord.HTTPException) -> JobFailed:
    """What Discord's no means for a job; trying again changes nothing."""
    if error.code == 10003:
        gone = "The channel this was asked for in does not exist any more."
        return JobFailed(Cause.PERMISSION, str(error), gone)
    known = (50001, 50007, 50013)  # no access, no direct messages, no permission
    cause = Cause.PERMISSION if error.code in known else Cause.INTERNAL
    return JobFailed(cause, str(error))


def split_parts(files: Sequence[MediaFile]) -> list[list[MediaFile]]:
    """Files in order, split into messages of at most 10 files and 25 MiB; a larger
    file goes alone."""
    parts: list[list[MediaFile]] = []
    for file in files:
        room = MAX_MESSAGE_BYTES - sum(f.size for f in parts[-1]) if parts else 0
        if parts and len(parts[-1]) < MAX_FILES and file.size <= room:
            parts[-1].append(file)
        else:
            parts.append([file])
    return parts
