"""/archive: see and forget what the bot remembers."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import re
from typing import Any

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._audit import note
from bossbot_plugins._commands import admit, guard, user_of
from bossbot_plugins._jobs import MODERATOR, guild_id_of
from bossbot_plugins._readable import may_read
from bossbot_plugins._words import check_words
from discord.ext import commands

from bossbot import (
    App,
    BossBot,
    Refused,
    _,
    ngettext,
)

from ._find import Owner
from .store import SQLiteArchive, own_archive

Context = commands.Context[Any]
MESSAGE = re.compile(r"(?:/channels/(?:\d+|@me)/\d+/|^\s*)(\d{15,20})\W*$", re.ASCII)
EXAMPLE = "https://discord.com/channels/1/2/100000000000000003"


class Archive(commands.Cog):
    """What I remember of what I have posted."""

    def __init__(self, bot: BossBot) -> None:
        self.app: App = bot.app

    @property
    def kept(self) -> SQLiteArchive:
        """The archive; Refused without ours."""
        if archive := own_archive(self.app):
            return archive
        raise Refused(_("This bot does not remember its posts."))

    @guard("archive status", group="archive")
    @commands.hybrid_group(
        name="archive", invoke_without_command=True, case_insensitive=True
    )
    async def archive(self, ctx: Context, *, words: str = "") -> None:
        """See what I remember of my posts."""
        check_words(self.archive, words)
        await self.show_status(ctx)

    @guard("archive status", group="archive")
    @archive.command(ignore_extra=False)
    async def status(self, ctx: Context) -> None:
        """Show how many posts of this server can be found."""
        await self.show_status(ctx)

    async def show_status(self, ctx: Context) -> None:
        await ctx.defer(ephemeral=True)
        await reply(ctx, "\n".join(await lines_of(self.kept, guild_id_of(ctx))))

    @guard("archive forget", group="archive", needs=())
    @archive.command(ignore_extra=False, extras={"example": EXAMPLE})
    @discord.app_commands.describe(message="a link to my message")
    async def forget(self, ctx: Context, message: str) -> None:
        """Forget one of my posts; the message itself stays."""
        await ctx.defer(ephemeral=True)
        found = MESSAGE.search(message)
        with self.kept.refused():
            owner = found and await self.kept.owner_of(int(found[1]))
        if not owner or not may_see(ctx, owner):
            raise Refused(_("I have stored nothing about that message."))
        if owner.user_id != user_of(ctx).id:
            await admit(
                ctx, "archive forget", group="archive", needs=MODERATOR, dry=True
            )
            check_moderator(ctx, owner)
        with self.kept.refused():
            await self.kept.forget_job(owner.job_id)
        who = user_of(ctx).id
        await note(self.app, guild_id_of(ctx), who, "archive forget", job=owner.job_id)
        await reply(ctx, _("I have forgotten that. The message itself is still there."))

    @guard("archive rebuild", group="owner")
    @archive.command(ignore_extra=False)
    async def rebuild(self, ctx: Context) -> None:
        """Rebuild the index from the texts."""
        await ctx.defer(ephemeral=True)
        with self.kept.refused():
            await self.kept.rebuild()
        await reply(
            ctx, _("The words have been indexed again. Search by meaning follows.")
        )


def may_see(ctx: Context, owner: Owner) -> bool:
    """Whether a member may know of a post: of this server, in a channel that is open to
    the member, or asked for by the member."""
    if owner.guild_id != guild_id_of(ctx):
        return False
    if not ctx.guild or owner.user_id == user_of(ctx).id:
        return owner.user_id == user_of(ctx).id
    channel: Any = ctx.guild.get_channel_or_thread(owner.channel_id)
    if isinstance(channel, discord.Thread) and not channel.is_private():
        channel = channel.parent
    return channel is None or may_read(channel, user_of(ctx), adult=True, joined=True)


def check_moderator(ctx: Context, owner: Owner) -> None:
    """Refuse somebody who is no moderator where a post is."""
    assert ctx.guild
    channel: Any = ctx.guild.get_channel_or_thread(owner.channel_id)
    member: Any = user_of(ctx)
    try:
        may = channel.permissions_for(member) if channel else member.guild_permissions
    except discord.ClientException:  # a thread of a channel that the bot cannot see
        may = member.guild_permissions
    if not may.manage_messages:
        raise Refused(_("Only a moderator of that channel may do that."))


async def lines_of(archive: SQLiteArchive, guild_id: int) -> list[str]:
    """How the archive of a server is."""
    if not archive.keeps(guild_id):
        return [_("The archive is switched off on this server.")]
    with archive.refused():
        known = await archive.status(guild_id)
    text = ngettext(
        "{count} post can be found here.",
        "{count} posts can be found here.",
        known["posts"],
    )
    lines = [text.format(count=known["posts"])]
    if known["oldest"]:
        text = _("The oldest one is from {when}.")
        lines.append(text.format(when=f"<t:{int(known['oldest'])}:D>"))
    if known["work"]:
        text = _("Posts whose files I have not read yet: {count}")
        lines.append(text.format(count=known["work"]))
    lines.append(_(archive.meaning.status()))
    if archive.meaning.model and (left := known["pieces"] - known["vectors"]):
        text = _("Texts that cannot be found by meaning yet: {count}")
        lines.append(text.format(count=left))
    if archive.trouble:
        lines.append(
            _(
                "I cannot add posts to the archive now. The bot's owner can find the "
                "reason in the log."
            )
        )
    return lines
