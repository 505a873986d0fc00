"""Posts a job's files to its Discord channel, each exactly once as far as can be."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Sequence
from typing import Any

import aiohttp
import discord
from loguru import logger

from bossbot import (
    BossBot,
    Cause,
    Courier,
    Download,
    Job,
    JobFailed,
    MediaFile,
    Message,
    Refused,
    escape,
    format_size,
    format_time,
    hookimpl,
    now,
)

MAX_FILES = 10  # Discord, 2026-11: attachments of one message
MAX_MESSAGE_BYTES = 25 * 2**20  # Discord, 2026-11: about what one request may carry
MAX_CONTENT = 2000  # characters
# A nonce makes a resend harmless for "the past few minutes"; we trust it this long.
NONCE_WINDOW_S = 60
SEND_TRIES = 5
SMALLER_LIMITS = [n * 2**20 for n in (100, 50, 25, 20, 10, 8, 4, 2, 1)]  # after a 413


@hookimpl(trylast=True)  # any other courier is there because the host wants it
async def register_courier(bot: BossBot) -> Courier:
    return DiscordCourier(bot)


class _Oversize(Exception):
    """Discord answered 413."""


class DiscordCourier:
    """The ``Courier`` to Discord: what is posted is frozen first, then each message is
    sent with a nonce of its own, so that a crash posts nothing twice."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.pipeline = bot.pipeline
        self.db = bot.pipeline.db

    async def _channel(self, job: Job) -> Any:
        """The channel of a job; raises JobFailed when it is gone or closed to us."""
        await self.bot.wait_until_ready()
        channel = self.bot.get_channel(job.channel_id)
        try:
            return channel or await self.bot.fetch_channel(job.channel_id)
        except (discord.NotFound, discord.Forbidden) as error:
            raise JobFailed(Cause.PERMISSION, str(error)) from error

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
            reason = escape(str(facts.failures[0]), 150)
            notes.append(
                f"{total - lost} of {total}, {lost} could not be fetched: {reason}"
            )
        items = facts.facts.get("items")
        if facts.facts.get("more") or (items or 0) > total:
            notes.append(f"The first {total} of {items or 'more'}.")
        text = str(facts.facts.get("text") or "") if not files else ""
        await self._store(job, files, limit, notes, facts.facts, text)

    async def _store(
        self,
        job: Job,
        files: Sequence[MediaFile],
        limit: int,
        notes: list[str],
        facts: dict[str, Any],
        text: str = "",
    ) -> None:
        fitting = [file for file in files if file.size <= limit]
        for file in [file for file in files if file.size > limit]:
            link = await self.pipeline.plugins.call_first(
                "deliver_file", job=job, file=file
            )
            notes.append(
                str(link)
                if link
                else f"Too large for this channel: {file.name} is "
                f"{format_size(file.size)}, the limit is {format_size(limit)}."
            )
        if files and not fitting:
            source = f"\nSource: <{job.url}>"
            raise JobFailed(Cause.TOO_LARGE, message="\n".join(notes)[:1700] + source)
        parts = split_parts(fitting) or [[]]
        size = sum(file.size for file in fitting)
        took = format_time(now() - job.created_at)
        count = f"{len(fitting)} file{'s' * (len(fitting) != 1)}, {format_size(size)}, "
        lines = [f"**Download complete**: {count if fitting else ''}{took}"]
        if now() - job.created_at > 60:
            lines[0] = f"<@{job.user_id}> {lines[0]}"
        title, uploader = (
            escape(str(facts.get(k) or "")) for k in ("title", "uploader")
        )
        lines += [" · ".join(filter(None, (title, uploader)))] if fitting else []
        lines += [f"> {escape(text, 1200)}"] if text else []
        lines += [*notes, f"<{job.url}>" if len(job.url) < 500 else ""]
        contents = ["\n".join(filter(None, lines))[:MAX_CONTENT]]
        contents += [f"({n}/{len(parts)})" for n in range(2, len(parts) + 1)]
        async with self.db.transaction() as connection:
            await connection.execute(
                "DELETE FROM parts WHERE job_id = ? AND state = 'waiting'", (job.id,)
            )
            for part, content in zip(parts, contents, strict=True):
                await connection.execute(
                    "INSERT INTO parts (job_id, number, files, content, state) SELECT "
                    "?1, coalesce(max(number), 0) + 1, ?2, ?3, 'waiting' FROM parts "
                    "WHERE job_id = ?1",
                    (job.id, json.dumps([file.name for file in part]), content),
                )

    async def post(self, job: Job) -> None:
        """Send every message that is not sent yet, in order.

        Raises:
            JobFailed: permission lost, a file gone, Discord out of reach.
        """
        channel = await self._channel(job)
        while row := await self.db.one(
            "SELECT * FROM parts WHERE job_id = ? AND state IN ('waiting', 'sending') "
            "ORDER BY number LIMIT 1",
            job.id,
        ):
            try:
                files = await asyncio.to_thread(
                    self.pipeline.storage.kept_files, job, json.loads(row["files"])
                )
                await self._send_part(job, channel, row, files)
            except FileNotFoundError as error:
                raise JobFailed(
                    Cause.INTERNAL, f"a kept file is gone: {error}"
                ) from None
            except _Oversize:
                await self._step_down(job, channel, row)

    async def _send_part(
        self, job: Job, channel: Any, row: sqlite3.Row, files: list[MediaFile]
    ) -> None:
        plugins = self.pipeline.plugins
        try:
            await plugins.call("check_upload", job=job, files=files, channel=channel)
        except Refused as error:
            raise JobFailed(Cause.PERMISSION, message=str(error)) from error
        message = await plugins.fold(
            "decorate_message", "message", job=job, message=Message(row["content"])
        )
        first_s = row["sending_at"]
        for attempt in range(SEND_TRIES):
            # Past the nonce's window only the channel can tell what has arrived.
            if first_s and not 0 <= now() - first_s < NONCE_WINDOW_S:
                if found := await self._find_sent(job, channel, row):
                    return await self._sent(row, found)
                first_s = 0
            if not first_s:
                first_s = now()
                await self.db.all(
                    "UPDATE parts SET state = 'sending', sending_at = ?, channel_id = ? "
                    "WHERE job_id = ? AND number = ?",
                    *(first_s, job.channel_id, job.id, row["number"]),
                )
            try:
                sent = await self._send_once(job, channel, row, files, message)
                return await self._sent(row, sent.id)
            except discord.HTTPException as error:
                if error.status == 413 or error.code == 40005:
                    raise _Oversize from error
                if error.status < 500 and error.status != 429:
                    cause = Cause.PERMISSION
                    if error.code not in (10003, 50001, 50013):
                        cause = Cause.INTERNAL
                    raise JobFailed(cause, str(error)) from error
                reason: Exception = error
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                reason = error
            logger.bind(job=job.id).info("sending again after: {!r}", reason)
            await asyncio.sleep(random.uniform(0, 2**attempt))
        raise JobFailed(
            Cause.NETWORK,
            f"not posted: {reason!r}",
            "Discord did not take the files. Try again later.",
        )

    async def _send_once(
        self,
        job: Job,
        channel: Any,
        row: sqlite3.Row,
        files: list[MediaFile],
        message: Message,
    ) -> discord.Message:
        """One try. A slow line gets a second for each 64 KiB."""
        options: dict[str, Any] = {
            key: value
            for key, value in (("embed", message.embed), ("view", message.view))
            if value is not None
        }
        if request := job.message_id or job.status_message_id:
            options["reference"] = discord.MessageReference(
                message_id=request, channel_id=job.channel_id, fail_if_not_exists=False
            )
        pinged = [discord.Object(job.user_id)] if message.content[:2] == "<@" else []
        async with asyncio.timeout(60 + sum(file.size for file in files) / 65536):
            sent: discord.Message = await channel.send(
                message.content,
                files=[discord.File(file.path, file.name) for file in files],
                nonce=f"{job.id}-{row['number']}",
                allowed_mentions=discord.AllowedMentions(
                    everyone=False, roles=False, users=pinged, replied_user=False
                ),
                **options,
            )
        return sent

    async def _sent(self, row: sqlite3.Row, message_id: int) -> None:
        await self.db.all(
            "UPDATE parts SET state = 'sent', message_id = ? "
            "WHERE job_id = ? AND number = ?",
            *(message_id, row["job_id"], row["number"]),
        )

    async def _find_sent(self, job: Job, channel: Any, row: sqlite3.Row) -> int:
        """Our message with this part, by its file names; 0 when there is none."""
        names = json.loads(row["files"])
        request = job.message_id or job.status_message_id
        after = discord.Object(request) if request else None
        async for message in channel.history(limit=500, after=after, oldest_first=True):
            if message.author == self.bot.user and (
                [attachment.filename for attachment in message.attachments] == names
                and (names or message.content == row["content"])
            ):
                return int(message.id)
        return 0

    async def _step_down(self, job: Job, channel: Any, row: sqlite3.Row) -> None:
        """After a 413: remember a lower limit for the guild, plan what is left anew."""
        guild = getattr(channel, "guild", None)
        rows = await self.db.all(
            "SELECT files FROM parts WHERE job_id = ? AND state IN ('waiting', 'sending')",
            job.id,
        )
        names = [name for one in rows for name in json.loads(one["files"])]
        files = await asyncio.to_thread(self.pipeline.storage.kept_files, job, names)
        largest = max(file.size for file in files)
        limit = min(await self._limit(guild), largest)
        limit = next((n for n in SMALLER_LIMITS if n < limit), 0)
        tier = guild.premium_tier if guild else 0
        await self.db.fact(f"limit:{guild.id if guild else 0}:{tier}", str(limit))
        logger.warning("Discord takes less here: guild {} now {} bytes", guild, limit)
        await self.db.all(
            "UPDATE parts SET state = 'dropped' WHERE job_id = ? AND number = ?",
            *(job.id, row["number"]),
        )
        await self._store(job, files, limit, [], {"title": job.title})


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
