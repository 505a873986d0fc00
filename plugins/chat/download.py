"""The command that takes links: $download (also $dlt, $dlr, $dl) and /download."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import aiohttp
import discord
from bossbot_plugins._commands import admitted, guard
from bossbot_plugins._links import Found, find_links, find_spoilers, known_by
from discord.ext import commands
from loguru import logger

from bossbot import BossBot, Priority, Refused, escape, hookimpl, show_link

__all__ = ["find_links"]

# Discord is out of reach, which must not stop the next link.
FAILURES = (discord.DiscordException, OSError, aiohttp.ClientError)
MAX_LINKS = 25  # of one request
MAX_CONTENT = 2000  # Discord, 2026-11: characters
NO_LINK = "Invalid URL: it must start with http:// or https://."


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Download(bot)]


class Download(commands.Cog):
    """Download what is behind links and post it here."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot

    @guard("download", group="download", needs=("send_messages", "attach_files"))
    # A converter would hide "Invalid URL" behind its own error: the words are ours.
    @commands.hybrid_command(  # type: ignore[arg-type]
        aliases=["dl", "dlt", "dlr"],
        extras={"example": "https://youtu.be/jNQXAC9IVRw"},
    )
    @discord.app_commands.describe(url="one link or several, with spaces between")
    async def download(self, ctx: commands.Context[Any], *, url: str = "") -> None:
        """Download what is behind a link, or several, and post it here."""
        if ctx.interaction:  # it must be answered within 3 s, whatever comes
            with contextlib.suppress(*FAILURES):  # then the channel gets the answer
                await ctx.defer()
        if missing := missing_permissions(ctx.channel):
            names = ", ".join(missing)
            await self.say(
                ctx, f"I cannot post files here. Ask an admin to give me: {names}."
            )
            return
        links = self.find(url)
        if not links and (quoted := await self.quoted(ctx)) is not None:
            links = self.find(quoted)
            if not links:
                await self.say(ctx, "There is no link in that message.")
                return
        if not links:
            await self.say(ctx, no_link(ctx, url))
            return
        await self.take_all(ctx, links)

    def find(self, text: str) -> list[Found]:
        platforms = self.bot.app.plugins.registered("platforms").values()
        return find_spoilers(text, known_by(platforms))

    async def quoted(self, ctx: commands.Context[Any]) -> str | None:
        """The words of the message that the request replies to, "" when it cannot be
        read; None when it is no reply. Only one of this channel, which its member can
        read, too."""
        reference = None if ctx.interaction else ctx.message.reference
        if not reference or not reference.message_id:
            return None
        if reference.channel_id != ctx.channel.id:
            return ""
        message = reference.resolved
        if message is None:
            with contextlib.suppress(*FAILURES):
                message = await ctx.channel.fetch_message(reference.message_id)
        if not isinstance(message, discord.Message):
            return ""
        forwarded = getattr(message, "message_snapshots", ())
        return "\n".join([message.content, *(one.content for one in forwarded)])

    async def take_all(self, ctx: commands.Context[Any], links: list[Found]) -> None:
        """Take in each link; what becomes no job is answered together."""
        answers: list[str] = []
        refused: dict[str, list[str]] = defaultdict(list)  # links by reason
        for number, found in enumerate(links[:MAX_LINKS]):
            try:
                if answer := await self.take(ctx, found, number):
                    answers.append(answer)
            except Refused as error:
                refused[str(error)].append(found.link)
        if len(links) > MAX_LINKS:
            answers.append(
                f"I take {MAX_LINKS} links at a time, and there are {len(links)}. "
                f"Ask again for the other {len(links) - MAX_LINKS}."
            )
        for text in packed(answers):
            await self.say(ctx, text)
        if ctx.interaction and sum(map(len, refused.values())) == len(links):
            # Else the first answer would be as public as "is thinking" is.
            with contextlib.suppress(*FAILURES):
                await ctx.interaction.delete_original_response()
        for text in packed(explained(refused)):
            await self.say(ctx, text, private=True)

    async def take(self, ctx: commands.Context[Any], found: Found, number: int) -> str:
        """Take in one link, and return an answer when it becomes no job; for a job the
        status message is the answer. Raises Refused."""
        request = ctx.interaction.id if ctx.interaction else ctx.message.id
        action = admitted(ctx)
        accepted = await self.bot.app.intake(
            found.link,
            guild_id=ctx.guild.id if ctx.guild else 0,
            channel_id=ctx.channel.id,
            user_id=ctx.author.id,
            request_key=f"{request}:{number}",
            message_id=0 if ctx.interaction else ctx.message.id,
            options={"spoiler": True} if found.spoiler else {},
            priority=action.priority if action else Priority.NORMAL,
        )
        return accepted.answer if accepted else ""

    async def say(
        self, ctx: commands.Context[Any], text: str, private: bool = False
    ) -> None:
        """Answer the request, or its channel when that fails or the request is gone; a
        slash command's ``private`` answer is for its member only."""
        try:
            if ctx.interaction:
                with contextlib.suppress(*FAILURES):
                    await ctx.send(text, ephemeral=private)
                    return
                await ctx.channel.send(text)
                return
            reference = ctx.message.to_reference(fail_if_not_exists=False)
            await ctx.send(text, reference=reference, mention_author=False)
        except FAILURES as error:
            logger.warning("an answer could not be sent: {!r}", error)


def no_link(ctx: commands.Context[Any], words: str) -> str:
    """The one answer to words without a link."""
    if any(char.isalnum() for char in words):
        return f"{NO_LINK}\n{escape(words)}"
    return f"Give me a link: `{ctx.clean_prefix}download https://…`"


def explained(refused: dict[str, list[str]]) -> list[str]:
    """Each reason, with the links that were refused for it."""
    texts = []
    for reason, links in refused.items():
        shown = [show_link(link, 200) or escape(link, 100) for link in links]
        texts.append("\n".join([reason, *shown]))
    return texts


def packed(texts: Iterable[str]) -> list[str]:
    """Texts in as few messages as hold them; a longer one is cut."""
    messages: list[str] = []
    for text in texts:
        if len(text) > MAX_CONTENT:
            text = text[: MAX_CONTENT - 2]
            text = (text.rpartition("\n")[0] or text) + "\n…"
        if messages and len(messages[-1]) + len(text) < MAX_CONTENT:
            messages[-1] += f"\n{text}"
        else:
            messages.append(text)
    return messages


def missing_permissions(channel: Any) -> list[str]:
    """The permissions missing to post files in a channel, in Discord's words."""
    guild = getattr(channel, "guild", None)
    if guild is None or guild.me is None:
        return []  # a direct message
    try:
        permissions = channel.permissions_for(guild.me)
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        return ["View Channel"]
    needed = {
        "View Channel": permissions.view_channel,
        **may_post(channel, permissions),
        "Read Message History": permissions.read_message_history,
    }
    return [name for name, granted in needed.items() if not granted]


def may_post(channel: Any, permissions: discord.Permissions) -> dict[str, bool]:
    """What posting files in a channel takes, and whether it is granted."""
    if isinstance(channel, discord.Thread):
        first = {"Send Messages in Threads": permissions.send_messages_in_threads}
    else:
        first = {"Send Messages": permissions.send_messages}
    return {**first, "Attach Files": permissions.attach_files}
