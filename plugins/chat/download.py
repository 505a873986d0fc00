"""The command that takes links: $download (also $dlt, $dlr, $dl) and /download."""

import contextlib
from typing import Any

import aiohttp
import discord
from discord.ext import commands
from loguru import logger

from bossbot import BossBot, Refused, escape, hookimpl

# Discord is out of reach, which must not stop the next link.
FAILURES = (discord.DiscordException, OSError, aiohttp.ClientError)


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [Download(bot)]


class Download(commands.Cog):
    """Download what is behind links and post it here."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot

    # A converter would hide "Invalid URL" behind its own error: the words are ours.
    @commands.hybrid_command(aliases=["dl", "dlt", "dlr"])  # type: ignore[arg-type]
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
        links = find_links(url)
        if not links:
            await self.say(
                ctx, f"Give me a link: `{ctx.clean_prefix}download https://…`"
            )
        for number, link in enumerate(links):
            await self.take(ctx, link, number)

    async def take(self, ctx: commands.Context[Any], link: str, number: int) -> None:
        """Take in one link, and answer when it becomes no job; for a job the status
        message is the answer."""
        request = ctx.interaction.id if ctx.interaction else ctx.message.id
        try:
            accepted = await self.bot.app.intake(
                link,
                guild_id=ctx.guild.id if ctx.guild else 0,
                channel_id=ctx.channel.id,
                user_id=ctx.author.id,
                request_key=f"{request}:{number}",
                message_id=0 if ctx.interaction else ctx.message.id,
            )
        except Refused as error:
            await self.say(ctx, f"{error}\n{escape(link)}")
            return
        if accepted and accepted.answer:
            await self.say(ctx, accepted.answer)

    async def say(self, ctx: commands.Context[Any], text: str) -> None:
        """Answer the request, or its channel when that fails or the request is gone."""
        try:
            if ctx.interaction:
                with contextlib.suppress(*FAILURES):
                    await ctx.send(text)
                    return
                await ctx.channel.send(text)
                return
            reference = ctx.message.to_reference(fail_if_not_exists=False)
            await ctx.send(text, reference=reference, mention_author=False)
        except FAILURES as error:
            logger.warning("an answer could not be sent: {!r}", error)


def missing_permissions(channel: Any) -> list[str]:
    """The permissions missing to post files in a channel, in Discord's words."""
    guild = getattr(channel, "guild", None)
    if guild is None or guild.me is None:
        return []  # a direct message
    try:
        permissions = channel.permissions_for(guild.me)
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        return ["View Channel"]
    thread = isinstance(channel, discord.Thread)
    needed = {
        "View Channel": permissions.view_channel,
        "Send Messages in Threads": permissions.send_messages_in_threads or not thread,
        "Send Messages": permissions.send_messages or thread,
        "Attach Files": permissions.attach_files,
        "Read Message History": permissions.read_message_history,
    }
    return [name for name, granted in needed.items() if not granted]


def find_links(text: str) -> list[str]:
    """The words of a member, in order and once each, without the punctuation and the
    mark-up around them. Words that are no links stay, to be answered."""
    links = []
    for word in text.split():
        before = ""
        while word != before:
            before = word
            word = word.rstrip(".,;:!?")
            for left, right in ("<>", "()", "[]", '""', "``", ("||",) * 2, ("**",) * 2):
                if word.startswith(left) and word.endswith(right):
                    word = word[len(left) : -len(right)]
                elif left != right and word.count(right) > word.count(left):
                    word = word.removesuffix(right)  # "(see https://a/b)"
        links.append(word)
    return list(dict.fromkeys(filter(None, links)))
