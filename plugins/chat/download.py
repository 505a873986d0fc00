"""The commands that take links: $download (also $dlt, $dlr, $dl), /download, and the
entry of a message's menu."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Literal, get_args

import discord
from bossbot_plugins._answers import Answer, packed
from bossbot_plugins._commands import (
    MEDIA_NEEDS,
    admit,
    admitted,
    cannot_post,
    guard,
)
from bossbot_plugins._links import (
    Found,
    find_links,
    find_spoilers,
    known_by,
    show_link,
    text_of,
)
from bossbot_plugins._refusals import UNREACHABLE
from bossbot_plugins._spoilers import bars
from discord.ext import commands
from loguru import logger
from pydantic import Field

from bossbot import (
    N_,
    Action,
    App,
    BossBot,
    Job,
    PluginConfig,
    Priority,
    Refused,
    _,
    escape,
    hookimpl,
)

__all__ = ["cannot_post", "find_links"]

MAX_LINKS = 25  # of one request

Quality = Literal["best", "1080", "720", "480", "audio"]  # each one takes less
QUALITIES = get_args(Quality)
MARKS = ("thread", "spoiler", "subtitles")
# What a word of a $ command asks for.
WORDS: dict[str, dict[str, Any]] = {
    **{word: {"quality": word} for word in QUALITIES},
    **{f"{word}p": {"quality": word} for word in QUALITIES if word.isdecimal()},
    **{word: {word: True} for word in MARKS},
}


class Config(PluginConfig):
    """[plugins.download] in config.toml."""

    direct_messages: bool = Field(
        False, description="true: anyone may download in direct messages, too"
    )


class GuildConfig(PluginConfig):
    """[download] of a server."""

    quality: Quality = Field("best", description="highest quality of videos")
    spoiler: bool = Field(False, description="post all files as spoilers")


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    cog = Download(bot)
    # A cog has no entries of menus, so the callback is one of its methods.
    menu = discord.app_commands.ContextMenu(
        name=N_("Download media"),
        callback=cog.download_message,
        extras={"action": "download"},  # what /help asks whether it may be done
    )
    return [cog, menu]


@hookimpl
async def check_action(action: Action, config: Config) -> None:
    """See docs/plugins.md."""
    if action.group == "download" and not action.guild_id:
        check_direct_message(config)


@hookimpl
async def check_job(job: Job, config: Config, guild: GuildConfig) -> None:
    """Limits a request to the settings of the server."""
    if job.channel_id and not job.guild_id:
        check_direct_message(config)
    asked = job.options.pop("quality", "best")
    if (quality := max(asked, guild.quality, key=QUALITIES.index)) != "best":
        job.options["quality"] = quality
    if guild.spoiler:
        job.options["spoiler"] = True


def check_direct_message(config: Config) -> None:
    if not config.direct_messages:
        raise Refused(_("I only download on servers, not in direct messages."))


class Download(commands.Cog):
    """Download the media behind links and post them here."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        # A $ command may be a reply to the link, but Discord's own form opens with what
        # is required, and a phone would hide the rest.
        slash: Any = self.download.app_command
        slash._params["url"].required = True

    @guard("download", group="download", needs=MEDIA_NEEDS)
    # A converter would hide "Invalid URL" behind its own error: the words are ours.
    @commands.hybrid_command(  # type: ignore[arg-type]
        aliases=["dl", "dlt", "dlr"],
        usage="[link] [audio|480|720|1080|best] [thread] [spoiler] [subtitles]",
        extras={"example": "https://youtu.be/jNQXAC9IVRw"},
    )
    @discord.app_commands.describe(
        url="one or more links, with spaces between them",
        quality="highest quality of videos; audio: only the sound",
        thread="the author's whole thread, on Twitter/X",
        spoiler="post the files as spoilers",
        subtitles="burn the site's subtitles into the picture",
    )
    async def download(
        self,
        ctx: commands.Context[Any],
        *,
        url: str = "",
        # A $ command has these as words among the links.
        quality: Quality | None = None,
        thread: bool = False,
        spoiler: bool = False,
        subtitles: bool = False,
    ) -> None:
        """Download the media behind one or more links, and post them here."""
        if ctx.interaction:  # it must be answered within 3 s, whatever comes
            with contextlib.suppress(*UNREACHABLE):  # then the channel gets the answer
                await ctx.defer()
        if cannot := cannot_post(ctx.channel):
            await self.say(ctx, cannot)
            return
        if ctx.interaction:
            given = dict(zip(MARKS, (thread, spoiler, subtitles), strict=True))
            options = {"quality": quality} | given
            options = {name: value for name, value in options.items() if value}
        else:
            url, options = asked_for(url)
        links = self.find(url)
        if not links and (quoted := await self.quoted(ctx)) is not None:
            links = self.find(quoted)
            if not links:
                await self.say(ctx, _("There is no link in that message."))
                return
        if not links:
            await self.say(ctx, no_link(ctx, url))
            return
        await self.take_all(ctx, links, options)

    async def download_message(
        self, interaction: discord.Interaction, message: discord.Message
    ) -> None:
        """Download the media behind the links in a message, and post them here."""
        await admit(interaction, "download", group="download", needs=MEDIA_NEEDS)
        if cannot := cannot_post(interaction.channel):
            raise Refused(cannot)
        links = self.find(text_of(message))
        if not links:
            raise Refused(_("There is no link in that message."))
        ctx: commands.Context[Any] = await commands.Context.from_interaction(
            interaction
        )
        with contextlib.suppress(*UNREACHABLE):
            await ctx.defer()
        await self.take_all(ctx, links, {})

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
            with contextlib.suppress(*UNREACHABLE):
                message = await ctx.channel.fetch_message(reference.message_id)
        return text_of(message) if isinstance(message, discord.Message) else ""

    async def take_all(
        self, ctx: commands.Context[Any], links: list[Found], options: dict[str, Any]
    ) -> None:
        """Take in each link; one answer covers all that become no job."""
        answers: list[Answer] = []
        refused: dict[str, list[str]] = defaultdict(list)  # links by reason
        for number, found in enumerate(links[:MAX_LINKS]):
            try:
                if answer := await self.take(ctx, found, number, options):
                    answers.append(answer)
            except Refused as error:
                refused[str(error)].append(found.link)
        if len(links) > MAX_LINKS:
            text = _(
                "I take {most} links at a time, and there are {count}. Ask again for the "
                "other {left}."
            )
            left = len(links) - MAX_LINKS
            text = text.format(most=MAX_LINKS, count=len(links), left=left)
            answers.append((text, None))
        for text, view in packed(answers):
            await self.say(ctx, text, view=view)
        if ctx.interaction and sum(map(len, refused.values())) == len(links):
            # Else the first answer would be as public as "is thinking" is.
            with contextlib.suppress(*UNREACHABLE):
                await ctx.interaction.delete_original_response()
        hidden = {found.link for found in links if found.spoiler}
        for text, _view in packed((one, None) for one in explained(refused, hidden)):
            await self.say(ctx, text, private=True)

    async def take(
        self,
        ctx: commands.Context[Any],
        found: Found,
        number: int,
        options: dict[str, Any],
    ) -> Answer | None:
        """Take in one link, and return an answer when it becomes no job, or not the one
        that was asked for; for a job the status message is the answer. Raises Refused."""
        request = ctx.interaction.id if ctx.interaction else ctx.message.id
        action = admitted(ctx)
        accepted = await self.bot.app.intake(
            Job(
                url=found.link,
                guild_id=ctx.guild.id if ctx.guild else 0,
                channel_id=ctx.channel.id,
                user_id=ctx.author.id,
                request_key=f"{request}:{number}",
                message_id=0 if ctx.interaction else ctx.message.id,
                options=options | ({"spoiler": True} if found.spoiler else {}),
                priority=action.priority if action else Priority.NORMAL,
            )
        )
        if accepted and accepted.job and options.get("thread"):
            text = no_thread(self.bot.app, accepted.job)
            return (text, None) if text else None
        return (
            (accepted.answer, accepted.view) if accepted and accepted.answer else None
        )

    async def say(
        self,
        ctx: commands.Context[Any],
        text: str,
        private: bool = False,
        view: discord.ui.View | None = None,
    ) -> None:
        """Answer the request, or its channel when that fails or the request is gone; a
        slash command's ``private`` answer is for its member only."""
        shown: dict[str, Any] = {"view": view} if view else {}
        try:
            if ctx.interaction:
                with contextlib.suppress(*UNREACHABLE):
                    await ctx.send(text, ephemeral=private, **shown)
                    return
                await ctx.channel.send(text, **shown)
                return
            reference = ctx.message.to_reference(fail_if_not_exists=False)
            await ctx.send(text, reference=reference, mention_author=False, **shown)
        except UNREACHABLE as error:
            logger.warning("an answer could not be sent: {!r}", error)


def asked_for(words: str) -> tuple[str, dict[str, Any]]:
    """The words of a $ command without those that ask for something, and what they ask
    for; of two that exclude each other the last one counts."""
    options: dict[str, Any] = {}

    def take(match: re.Match[str]) -> str:
        known = WORDS.get(match[0].casefold())
        options.update(known or {})
        return match[0] if known is None else ""

    return re.sub(r"\S+", take, words), options


def no_link(ctx: commands.Context[Any], words: str) -> str:
    """The one answer to words without a link."""
    if any(char.isalnum() for char in words):
        text = _("Invalid URL: it must start with http:// or https://.")
        return f"{text}\n{escape(words)}"
    example = f"`{ctx.clean_prefix}download https://…`"
    return _("Give me a link: {example}").format(example=example)


def no_thread(app: App, job: Job) -> str:
    """The answer to a request for a thread on a site without threads."""
    platform = app.plugins.registered("platforms").get(job.platform)
    if platform and platform.thread_options:
        return ""
    text = _("I cannot fetch threads there, only this post: {link}")
    return text.format(link=show_link(job.url, 200) or escape(job.url, 100))


def explained(refused: dict[str, list[str]], hidden: Collection[str] = ()) -> list[str]:
    """Each reason, with the links that were refused for it, some of them hidden."""
    texts = []
    for reason, links in refused.items():
        shown = {link: show_link(link, 200) or escape(link, 100) for link in links}
        shown |= {link: bars(shown[link]) for link in links if link in hidden}
        texts.append("\n".join([reason, *(shown[link] for link in links)]))
    return texts
