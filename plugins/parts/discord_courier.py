"""Posts a job's files to its Discord channel, each exactly once where possible."""

import asyncio
import contextlib
import io
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import discord
from bossbot_plugins._figures import counter
from bossbot_plugins._insist import insist
from bossbot_plugins._lacking import forget_lack, tell_lack
from bossbot_plugins._links import show_link
from bossbot_plugins._nonce import nonce
from bossbot_plugins._post_texts import (
    alt_of,
    alts_of,
    clip_embed,
    first_line,
    measure,
    noted,
    notes_of,
    ping,
    remarks,
    thread_names,
    untitled,
    why_not_posted,
)
from bossbot_plugins._quota import most_bytes
from bossbot_plugins._refusals import REFUSALS, UNREACHABLE
from bossbot_plugins._shared import shared_queue
from bossbot_plugins._spoilers import BARS, hide, hide_lines, is_spoiler
from loguru import logger
from pydantic import ByteSize, Field

from bossbot import (
    N_,
    App,
    Cause,
    Courier,
    Fetched,
    Job,
    JobFailed,
    MediaFile,
    Message,
    OutOfReach,
    Part,
    PluginConfig,
    Post,
    Refused,
    Status,
    _,
    escape,
    format_size,
    hookimpl,
    now,
    public_url,
)

MAX_FILES = 10  # Discord, 2026-11: attachments of one message
MAX_MESSAGE_BYTES = 25 * 2**20  # Discord, 2026-11: about what one request may carry
WHOLE_BYTES = 2**20  # of a message's files: read at once, more in pieces of 64 KiB
MAX_CONTENT = 2000  # characters
# A nonce makes a resend harmless for "the past few minutes"; we trust it this long.
NONCE_WINDOW_S = 60
SEND_TRIES = 5
MISTAKES = (AttributeError, TypeError, ValueError)
# Discord's filters refused the words: AutoMod's, and those for links.
FILTERED = (200000, 240000)
SMALLER_LIMITS = [n * 2**20 for n in (100, 50, 25, 20, 10, 8, 4, 2, 1)]  # after a 413
LEARNT_S = 7 * 86400.0  # then the guild's own limit is tried again
ATTEMPTS = 3  # of a worker at a job
UNKNOWN_CHANNEL = 10003  # Discord: or thread
THREAD_EXISTS = 160004  # Discord: the message has a thread, which has its id
# Made once: it takes loguru longer than a log line.
NOT_READ = logger.catch(message="the learnt limit cannot be read")
THREAD_NEEDS = ("create_public_threads", "send_messages_in_threads")


class Config(PluginConfig):
    """[plugins.discord_courier] in config.toml."""

    # Discord, 2026-09: per file, by the server's boost tier 0 to 3
    upload_limits: list[ByteSize] = Field(
        [ByteSize(n * 2**20) for n in (20, 20, 50, 100)],
        min_length=4,
        max_length=4,
        description="Discord's limit per file, by the server's boost tier 0 to 3",
    )


class GuildConfig(PluginConfig):
    """[discord_courier] of a server."""

    thread_above: int = Field(
        0,
        ge=0,
        description="albums with more files than this go into a thread; 0: never",
    )


@hookimpl
def register_parts(config: Config) -> dict[str, Callable[[App], Part]]:
    return {"courier": partial(DiscordCourier, config=config)}


@hookimpl
def register_metrics(registry: Any, app: App) -> None:
    courier: Any = app.courier
    if not hasattr(courier, "uploaded_bytes"):  # it is the owner's
        return
    text = "Files: attached to a message, linked, or dropped"
    read = courier.files.copy
    registry.register(counter("bossbot_files", text, ("delivery",), read))
    text, read = "Files that were posted", lambda: courier.uploaded_bytes
    registry.register(counter("bossbot_uploaded_bytes", text, (), read))


class _Oversize(Exception):
    """Discord answered 413."""


class DiscordCourier(Courier):
    """The ``Courier`` to Discord: every message is frozen in the job first, and then sent
    under the job's claim and with a nonce of its own, so that a crash posts nothing
    twice. It works without the gateway's cache, if with less to go by."""

    retry_wait_s = 1.0  # at most, before the second try; twice as long before each next
    send_timeout_s = 60.0  # of one try, and a second for each 64 KiB
    write_wait_s = 5.0  # before what could not be stored is written again

    def __init__(self, app: App, config: Config) -> None:
        super().__init__(app)
        self.config = config
        self.files = Counter(attached=0, linked=0, dropped=0)
        self.uploaded_bytes = 0

    def _channel(self, job: Job, post: Post) -> Any:
        place, guild_id = post.thread_id or job.channel_id, job.guild_id or None
        return self.app.bot.get_partial_messageable(place, guild_id=guild_id)

    async def _insist(self, job: Job, work: Callable[[], Awaitable[Any]]) -> Any:
        """The result of ``work``, which is done again while Discord is out of reach:
        discord.py does that only for a few answers.

        Raises:
            JobFailed: Discord refuses, or stays out of reach.
            _Oversize: it answered 413.
        """
        for attempt in range(SEND_TRIES):
            if attempt:
                await asyncio.sleep(
                    random.uniform(0, self.retry_wait_s * 2 ** (attempt - 1))
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
            N_("Discord did not accept the files. Try again later."),
        )

    async def limit_bytes(self, job: Job) -> int:
        """See ``Courier``; learnt from 413 answers, too."""
        limits: list[float] = [self._tier_limit(job), most_bytes(self.app, job)]
        if job.limit_bytes and not self._guild(job):
            limits.append(job.limit_bytes)
        with NOT_READ, contextlib.suppress(OutOfReach):  # the queue logs that
            limits.append(await self._learnt(job))
        return int(min(limits))

    def _guild(self, job: Job) -> discord.Guild | None:
        """A job's guild, if it is one, and the gateway has sent it."""
        guild = self.app.bot.get_guild(job.guild_id) if job.guild_id else None
        return None if guild is None or guild.unavailable else guild

    def _tier_limit(self, job: Job) -> int:
        """Discord's limit by the guild's boosts, as they are now."""
        limits = self.config.upload_limits
        if guild := self._guild(job):
            return limits[min(guild.premium_tier, len(limits) - 1)]
        # Without the gateway, there is the limit from the intake.
        known = job.limit_bytes if job.guild_id else 0
        return next((size for size in sorted(limits) if size >= known), max(limits))

    def _fact(self, job: Job) -> str:
        """Under which it is known what a guild with these boosts has refused."""
        return f"limit:{job.guild_id}:{self._tier_limit(job)}"

    async def _learnt(self, job: Job) -> float:
        """What a guild was found to take in the last week."""
        size, _, at = (await self.app.facts.get(self._fact(job))).partition(" ")
        age_s = now() - float(at or "inf")
        if not size or age_s > LEARNT_S:
            return float("inf")
        if age_s < 0:  # the clock was wrong then, or is now: a week from here
            await self.app.facts.set(self._fact(job), f"{size} {now()}")
        return int(size)

    async def _learn(self, job: Job, refused_bytes: int) -> int:
        """Remember that a guild takes less than it should: no file of this size. Returns
        what it may take, 1 when that is not worth remembering."""
        limit = next((size for size in SMALLER_LIMITS if size < refused_bytes), 1)
        if limit > 1:
            shown = format_size(limit)
            logger.warning(
                "Discord accepts only {} per file in guild {}", shown, job.guild_id
            )
            with logger.catch(message="the learnt limit is forgotten"):
                await self.app.facts.set(self._fact(job), f"{limit} {now()}")
        return limit

    async def freeze(
        self, job: Job, files: Sequence[MediaFile], fetched: Fetched
    ) -> None:
        """See ``Courier``: files in order, as many as fit in each message. What was
        sent, or may have been sent, stays as it is."""
        for post in job.posts:
            if post.state == "sending":
                renew(job, post, files)
        posted = [post for post in job.posts if post.state in ("sending", "sent")]
        taken = {piece(job, name) for post in posted for name in post.files}
        rest = [file for file in files if piece(job, file.name) not in taken]
        early, facts = job.status is Status.DOWNLOADING, fetched.facts
        notes = [] if early else remarks(fetched)
        said = str(facts.get("text") or "") if not (files or posted) else ""
        text = escape(said, 1200)
        text = escape(said, 600) if len(text) > 1200 else text  # mostly backslashes
        lines = [f"> {text}"] if text else []
        limit = job.limit_bytes = await self.limit_bytes(job)
        fitting, more = await self._fit(job, rest, limit, len(taken))
        count = len(taken) + len(fitting)
        if early and fitting:  # more are to come
            count = max(len(fetched.paths), facts.get("items") or 0)
        thread_id, lacks = await self._thread_for(job, posted, count)
        notes += [*more, *lacks]
        groups = split_files(fitting) or ([[]] if notes or not posted else [])
        earlier = sum(bool(post.files) for post in posted)
        last = earlier + len(groups)
        of = "" if early else f"/{last}"
        heads = [
            first_line(
                noted(group),
                f"({number}{of})" if number > 1 or (last > 1 and not early) else "",
            )
            for number, group in enumerate(groups, earlier + 1)
        ]
        if not posted:  # the first message says what there is, and has the thread
            if thread_id is not None:
                groups, heads = [[], *groups], ["", *heads]
            heads[0] = first_line(
                measure(job, fitting, bool(text)), heads[0], ping(job)
            )
        if heads:
            which = -1 if posted else 0
            heads[which] = "\n".join([heads[which], *lines, *notes])
        kept = [post for post in job.posts if post.state != "waiting"]
        if early and (large := [file for file in rest if file not in fitting]):
            left_out = {file.name: file.sha256 for file in large}
            kept.append(Post(0, "", left_out, "dropped"))  # their files stay
        new = new_posts(groups, heads, kept, thread_id)
        if not posted:
            new[0].thread_id = None
        job.posts = kept + new

    async def _fit(
        self, job: Job, files: Sequence[MediaFile], limit: int, posted: int = 0
    ) -> tuple[list[MediaFile], list[str]]:
        """The files that can be posted, and a line for each other one; sets the job's
        figures to those of the posted files, including ``posted`` earlier ones.

        Raises:
            JobFailed: nothing is left to post, and nothing more comes.
        """
        fitting = [f for f in files if f.size <= limit and not f.failure]
        others = [file for file in files if file not in fitting]
        notes, delivered = [], bool(posted) or job.status is Status.DOWNLOADING
        for file in others:
            link = None
            if file.size > limit:
                call = self.app.plugins.call_first
                link = await call("deliver_file", job=job, file=file)
            delivered = delivered or bool(link)
            self.files["linked" if link else "dropped"] += 1
            notes.append(str(link or why_not_posted(job, file, limit)))
        if files and not fitting and not delivered:
            link = hide(job, show_link(public_url(job)))
            source = "\n" + _("Source: {link}").format(link=link) if link else ""
            said = "\n".join(notes)[:1300] + source
            failure = others[0].failure or JobFailed(Cause.TOO_LARGE)
            raise JobFailed(failure.cause, failure.detail, said)
        job.total_bytes -= sum(file.size for file in others)
        job.file_count = posted + len(fitting)
        return fitting, notes

    def split(self, files: Sequence[MediaFile]) -> list[list[MediaFile]]:
        """See ``Courier``."""
        return split_files(files)

    async def post(self, job: Job) -> None:
        """See ``Courier``.

        Raises:
            JobFailed: permission or the claim lost, Discord out of reach.
            FileNotFoundError: a kept file is gone, not as it was, or larger than Discord
                turns out to take.
        """
        while post := next((p for p in job.posts if p.state in UNSENT), None):
            try:
                if not await self._was_sent(job, post):
                    await self._send_post(job, post, await self._files(job, post))
            except _Oversize:
                await self._step_down(job, post)
            except JobFailed as error:
                refusal = error.__cause__
                if not post.thread_id or not isinstance(refusal, discord.HTTPException):
                    raise
                if not await self._was_sent(job, post):  # by an earlier try
                    await self._leave_thread(job, refusal)

    # Threads

    async def _thread_for(
        self, job: Job, posted: Sequence[Post], count: int
    ) -> tuple[int | None, list[str]]:
        """The thread for the next posts of so many files in all: 0 for one that is to be
        made, None for none; and a line on what the bot lacks for it."""
        if known := next((post.thread_id for post in posted if post.thread_id), 0):
            return known, []
        plugins = self.app.plugins
        guild: Any = plugins.guild_config(plugins.all[STEM], job)
        if not job.guild_id or not 0 < guild.thread_above < count:
            return None, []
        channel: Any = self.app.bot.get_channel(job.channel_id)
        with contextlib.suppress(*UNREACHABLE):
            channel = channel or await self.app.bot.fetch_channel(job.channel_id)
        if not isinstance(channel, discord.TextChannel):
            return None, []
        # Without the gateway it is not known what the bot may do, and it is tried.
        may = channel.guild.me and channel.permissions_for(channel.guild.me)
        missing = [name for name in THREAD_NEEDS if may and not getattr(may, name)]
        if not missing:
            return 0, []
        said = await tell_lack(self.app, job, "thread_above", missing)
        return None, [said] if said else []

    async def _open_thread(self, job: Job) -> None:
        """Make the thread for the posts that wait for it, on the job's first message; it
        can have but one, whose id is the message's. Where that is refused they go into
        the channel."""
        first = next((p.message_id for p in job.posts if p.state == "sent"), 0)
        channel: Any = self.app.bot.get_channel(job.channel_id)
        minutes: Any = getattr(channel, "default_auto_archive_duration", 1440)

        async def make(name: str) -> int:
            start = self.app.bot.http.start_thread_with_message
            try:
                async with asyncio.timeout(self.send_timeout_s):
                    thread = await start(
                        job.channel_id, first, name=name, auto_archive_duration=minutes
                    )
                return int(thread["id"])
            except discord.HTTPException as error:
                if error.code == THREAD_EXISTS:
                    return first
                raise

        names = thread_names(job)
        for name in names:
            try:
                self._move(job, await self._insist(job, partial(make, name)))
            except JobFailed as error:
                if not isinstance(refusal := error.__cause__, discord.HTTPException):
                    raise
                if name == names[-1] or isinstance(refusal, discord.Forbidden):
                    await self._leave_thread(job, refusal)
                    return
            else:
                await forget_lack(self.app, job, "thread_above")
                return

    async def _leave_thread(self, job: Job, why: discord.HTTPException) -> None:
        """Have what is not posted yet go into the channel."""
        logger.bind(job=job.id).info("no thread: {}", why)
        first = self._move(job, None)
        if why.code == 50013:
            said = await tell_lack(self.app, job, "thread_above", THREAD_NEEDS)
            first.content = "\n".join(filter(None, [first.content, said]))
        await self._save(job)

    def _move(self, job: Job, thread_id: int | None) -> Post:
        """Give the posts that were to go into a thread another place; returns the first
        of them."""
        moved = [p for p in job.posts if p.state in UNSENT and p.thread_id is not None]
        for post in moved:
            post.state, post.sending_at, post.thread_id = "waiting", 0, thread_id
        return moved[0]

    # Messages

    async def _files(self, job: Job, post: Post) -> list[MediaFile]:
        """The files of a post, as they were frozen; raises FileNotFoundError when they
        are not so any more."""
        try:
            files = await self.app.storage.kept_files(job, list(post.files))
        except (OSError, JobFailed) as error:
            raise FileNotFoundError(f"a kept file is gone: {error!r}") from error
        if [file.sha256 for file in files] != list(post.files.values()):
            raise FileNotFoundError("a kept file has changed")
        known = ((post.notes.get(f.name, ""), post.alts.get(f.name, "")) for f in files)
        return [
            replace(file, note=note, alt=alt)
            for file, (note, alt) in zip(files, known, strict=True)
        ]

    async def _was_sent(self, job: Job, post: Post) -> bool:
        """Whether an earlier claim has sent a post that it left "sending". When that
        was, no clock can say for sure, so the channel is asked; also where the queue may
        have forgotten more."""
        shared = shared_queue(self.app)
        if post.state == "waiting" and shared and shared.may_lag(job):
            find = partial(self._find_sent, job, self._channel(job, post), post, True)
            with contextlib.suppress(JobFailed):  # the bot may not look there
                post.message_id = await self._insist(job, find)
        if post.state == "sending":
            find = partial(self._find_sent, job, self._channel(job, post), post)
            try:
                post.message_id = await self._insist(job, find)
            except JobFailed as error:
                gone = getattr(error.__cause__, "code", 0) == UNKNOWN_CHANNEL
                if not (post.thread_id and gone):
                    raise error from None  # it may be there, so no other place gets it
            post.state, post.sending_at = "waiting", 0
        if post.message_id:
            post.state, post.channel_id = "sent", post.thread_id or job.channel_id
            self.files["attached"] += len(post.files)
            await self._save(job)
        return bool(post.message_id)

    async def _send_post(self, job: Job, post: Post, files: list[MediaFile]) -> None:
        plugins, channel = self.app.plugins, self._channel(job, post)
        try:
            check = partial(plugins.call, "check_upload", job=job, files=files)
            await insist(partial(check, channel=channel), job, self.write_wait_s)
        except Refused as error:
            raise JobFailed(error.cause, message=str(error)) from error
        if post.thread_id == 0:
            await self._open_thread(job)
            channel = self._channel(job, post)
        plain = Message(post.content)
        message: Message = await plugins.fold(
            "decorate_message", "message", job=job, message=Message(post.content)
        )

        wordless = False

        def decorated() -> bool:
            return message != plain and not wordless

        async def attempt() -> int:
            nonlocal message, wordless
            # After the nonce's window, only the channel shows whether it has arrived.
            if post.sending_at and now() - post.sending_at >= NONCE_WINDOW_S:
                if found := await self._find_sent(job, channel, post):
                    return found
                post.sending_at = 0
            post.state, post.sending_at = "sending", post.sending_at or now()
            await self._save(job)
            try:
                return await self._send_once(
                    job, channel, post, files, message, named=not wordless
                )
            except (discord.HTTPException, *MISTAKES) as error:
                filtered = getattr(error, "code", 0) in FILTERED
                if filtered and job.file_count and not wordless:
                    logger.bind(job=job.id).info("without title and link: {}", error)
                    message, wordless = Message(post.content.split("\n")[0]), True
                # What plugins added may be no embed at all, or none that Discord takes.
                elif cannot_be_sent(error) and decorated():
                    logger.warning(
                        "the additions of plugins cannot be sent: {!r}", error
                    )
                    only_words = Message(message.content)
                    message = plain if message == only_words else only_words
                else:
                    raise
                return await attempt()

        post.message_id = await self._insist(job, attempt)
        post.state, post.channel_id = "sent", post.thread_id or job.channel_id
        self.files["attached"] += len(files)
        self.uploaded_bytes += sum(file.size for file in files)
        unsent = any(one.state in UNSENT for one in job.posts)
        if unsent or job.status is not Status.UPLOADING:  # else the end comes next
            await self._save(job)

    async def _save(self, job: Job) -> None:
        """Store how far the posting is, and keep the claim.

        Raises:
            JobFailed: the claim was lost, so that another worker may be posting.
        """
        save = partial(self.app.queue.save, job, self.app.worker.lease_s)
        if not await insist(save, job, self.write_wait_s):
            raise JobFailed(Cause.CANCELLED, "the claim was lost")

    async def _send_once(
        self,
        job: Job,
        channel: Any,
        post: Post,
        files: list[MediaFile],
        message: Message,
        named: bool = True,
    ) -> int:
        """One try; returns the message's id. The files carry the title in their names,
        and their descriptions, unless ``named`` is off. Of a spoiler only the first line
        is to be seen; an embed cannot be hidden."""
        content, embed = message.content[:MAX_CONTENT], None
        first, spoiler = post.content.partition("\n")[0], is_spoiler(job)
        named = named and not spoiler
        if spoiler:
            content = hide_lines(message.content, first)
        elif message.embed:
            embed = clip_embed(message.embed)
        options: dict[str, Any] = {
            key: value
            for key, value in (("embed", embed), ("view", message.view))
            if value is not None
        }
        # A slash command leaves no message but the status message, which may go.
        if job.message_id and post.thread_id is None:
            options["reference"] = discord.MessageReference(
                message_id=job.message_id,
                channel_id=job.channel_id,
                fail_if_not_exists=False,
            )
        pinged = [discord.Object(job.user_id)] if f"<@{job.user_id}>" in first else []
        size = sum(file.size for file in files)
        sources: list[Any] = [file.path for file in files]
        async with asyncio.timeout(self.send_timeout_s + size / 65536):
            if 0 < size <= WHOLE_BYTES:
                sources = await asyncio.to_thread(
                    lambda: [io.BytesIO(file.path.read_bytes()) for file in files]
                )
            sent = await channel.send(
                content,
                files=[
                    discord.File(
                        source,
                        file.name if named else untitled(job, file.name),
                        spoiler=spoiler,
                        description=alt_of(file) if named else None,
                    )
                    for source, file in zip(sources, files, strict=True)
                ],
                nonce=nonce(job, post.number),
                allowed_mentions=discord.AllowedMentions(
                    everyone=False, roles=False, users=pinged, replied_user=False
                ),
                **options,
            )
        return int(sent.id)

    async def _find_sent(
        self, job: Job, channel: Any, post: Post, whole: bool = False
    ) -> int:
        """Our message with files of this post, or with its text; 0 when there is
        none. With ``whole``, it has all of them, and is not far from the request."""
        pieces = {piece(job, name) for name in post.files}
        lines = post.content.split("\n")
        replied_to = job.message_id if post.thread_id is None else 0
        number = job.request_key.partition(":")[0]  # of the message or interaction
        since = job.message_id or (int(number) if number.isdecimal() else 0)
        after = discord.Object(since) if since else None  # then the latest come first
        most = 200 if whole else 2000
        async for message in channel.history(limit=most, after=after):
            if message.author != self.app.bot.user:
                continue
            answered = message.reference.message_id if message.reference else 0
            found = {piece(job, file.filename) for file in message.attachments}
            said = message.content.replace(BARS, "")
            same = answered == replied_to and all(line in said for line in lines)
            if found & pieces and not (whole and pieces - found):
                return int(message.id)
            if same and not found and not pieces:
                return int(message.id)
        return 0

    async def _step_down(self, job: Job, post: Post) -> None:
        """After a 413: send files apart that went together; a file that went alone is
        over the guild's limit, which is lowered and remembered."""
        unsent = [one for one in job.posts if one.state in UNSENT]
        files = [file for one in unsent for file in await self._files(job, one)]
        alone, notes = await self._files(job, post), list[str]()
        if not alone:
            raise JobFailed(Cause.TOO_LARGE, "413 for a text")
        if len(alone) > 1:
            groups = [[file] for file in alone]
            groups += split_files(files[len(alone) :])
        else:
            limit = await self.limit_bytes(job)  # it may be lower than it was
            if alone[0].size <= limit:
                limit = await self._learn(job, alone[0].size)
            again = job.status is Status.UPLOADING and job.attempts < ATTEMPTS
            if again and not job.posted and limit > 1:
                post.state, post.sending_at = "waiting", 0
                raise FileNotFoundError(f"Discord takes only {format_size(limit)}")
            files, notes = await self._fit(job, files, limit, job.posted)
            groups = split_files(files) or [[]]
        lines = [line for one in unsent for line in one.content.split("\n")[1:]]
        if all(one.state != "sent" for one in job.posts):  # this one names the post
            first = first_line(measure(job, files), noted(groups[0]), ping(job))
            lines = [first, *lines]
        contents = ["\n".join([*lines, *notes]), *[""] * (len(groups) - 1)]
        post.state = "dropped"
        if len(groups) > 1:  # the rest must be there when the first of them is
            await self.app.storage.sync(job)
        kept = [one for one in job.posts if one.state in ("sent", "dropped")]
        job.posts = kept + new_posts(groups, contents, job.posts, post.thread_id)
        await self._save(job)


UNSENT = ("waiting", "sending")
STEM = __name__.rpartition(".")[2]


def piece(job: Job, name: str) -> str:
    """Which of a job's files this is. A second download may give it another title or
    ending, and Discord marks a spoiler by its name."""
    _, known, number = name.partition(f"{job.id}_")
    return number.partition(".")[0] if known else name.removeprefix("SPOILER_")


def cannot_be_sent(error: Exception) -> bool:
    """Whether what is in a message may be wrong, and not where it goes."""
    known = getattr(error, "code", 0) in REFUSALS
    return getattr(error, "status", 400) == 400 and not known


def renew(job: Job, post: Post, files: Sequence[MediaFile]) -> None:
    """Give a post, which may have been sent, its files from the new download."""
    pieces = [piece(job, name) for name in post.files]
    again = {piece(job, file.name): file for file in files}
    found = [again[one] for one in pieces if one in again]
    post.files = {file.name: file.sha256 for file in found}
    post.notes, post.alts = notes_of(found), alts_of(found)
    if pieces and not found:
        post.state = "dropped"


def new_posts(
    groups: Sequence[Sequence[MediaFile]],
    contents: Sequence[str],
    earlier: Sequence[Post],
    thread_id: int | None = None,
) -> list[Post]:
    """A post for each group of files, numbered after the earlier ones."""
    first = max((post.number for post in earlier), default=0) + 1
    return [
        Post(
            *(number, content[:MAX_CONTENT], {f.name: f.sha256 for f in files}),
            thread_id=thread_id,
            notes=notes_of(files),
            alts=alts_of(files),
        )
        for number, (files, content) in enumerate(
            zip(groups, contents, strict=True), first
        )
    ]


def _refusal(error: discord.HTTPException) -> JobFailed:
    """The failure for a refusal by Discord; trying again changes nothing."""
    known = (50001, 50007, 50013)  # no access, no direct messages, no permission
    cause = Cause.PERMISSION if error.code in known else Cause.INTERNAL
    if sentence := REFUSALS.get(error.code, ""):
        cause = Cause.PERMISSION
    return JobFailed(cause, str(error), sentence)


def split_files(files: Sequence[MediaFile]) -> list[list[MediaFile]]:
    """Files in order, split into messages of at most 10 files and 25 MiB; a larger
    file goes alone."""
    groups: list[list[MediaFile]] = []
    for file in files:
        room = MAX_MESSAGE_BYTES - sum(f.size for f in groups[-1]) if groups else 0
        if groups and len(groups[-1]) < MAX_FILES and file.size <= room:
            groups[-1].append(file)
        else:
            groups.append([file])
    return groups
