"""/search: finds posts of the bot by words and by meaning, and posts that are like a
message."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import re
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import discord
from bossbot_plugins._answers import reply
from bossbot_plugins._archive import Hit, archive_of
from bossbot_plugins._commands import admit, guard
from bossbot_plugins._found import (
    Kind,
    Place,
    Since,
    Wanted,
    cleaned,
    jumps,
    nothing,
    numbered,
    place_of,
    query_for,
    shown,
)
from bossbot_plugins._readable import channels_for
from discord import app_commands
from discord.ext import commands

from bossbot import N_, App, BossBot, Refused, _, did_you_mean, escape, hookimpl

Context = commands.Context[Any]
PER_PAGE = 5
MAX_CHOICES = 25  # Discord, 2026-11
MAX_KEPT = 500  # searches whose buttons work
ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{10}(?![0-9a-f])")
# Links, those with a text included, and what formats.
MARKS = re.compile(r"\[[^\[\]]{0,200}\]\(<?https?://[^()\s]*\)|<?https?://\S+|[*_|~`]+")

# What was looked for, by a key in the buttons. Only in memory: it is nobody's business.
kept: OrderedDict[str, Wanted] = OrderedDict()


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    cog = Search(bot)
    menu = app_commands.ContextMenu(
        name=N_("Find similar posts"),
        callback=cog.find_similar,
        extras={"action": "search"},
    )
    return [cog, menu, MoreButton, PostButton]


class Search(commands.Cog):
    """What I have posted."""

    def __init__(self, bot: BossBot) -> None:
        self.app: App = bot.app

    @guard("search", group="search")
    @commands.hybrid_command(
        usage='<words "exact words">', extras={"example": "sunrise over the sea"}
    )
    @app_commands.describe(
        query='words, or "exact words" in quotation marks',
        member="only posts that this member asked for",
        channel="only posts in this channel",
        platform="only posts from this site",
        kind="only posts with this kind of content",
        since="not older than this",
        public="show everybody here the results",
    )
    async def search(
        self,
        ctx: Context,
        *,
        query: str,
        member: discord.User | None = None,
        channel: Place = None,
        platform: str | None = None,
        kind: Kind | None = None,
        since: Since | None = None,
        public: bool = False,
    ) -> None:
        """Find my posts by words or by meaning."""
        public = public or not ctx.interaction
        await ctx.defer(ephemeral=not public)
        about = {"platform": self.known(platform or ""), "kind": kind or ""}
        wanted = Wanted.of(query, member, channel, since, public, **about)
        page = await found(self.app, ctx, wanted)
        if page is None:
            await reply(ctx, nothing(), private=not public)
            return
        await reply(ctx, private=not public, **page)

    @search.autocomplete("platform")
    async def platforms(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        names = sorted(self.app.plugins.registered("platforms"))
        word = typed.strip().lower()
        found = [one for one in names if word in one]
        return [app_commands.Choice(name=n, value=n) for n in found[:MAX_CHOICES]]

    def known(self, platform: str) -> str:
        """A platform's name as it is known. Raises Refused."""
        names = self.app.plugins.registered("platforms")
        name = platform.strip().lower()
        if name and name not in names:
            text = _("There is no site {name}{hint}.")
            hint = did_you_mean(name, names)
            raise Refused(text.format(name=escape(platform, 50), hint=hint))
        return name

    async def find_similar(
        self, interaction: discord.Interaction, message: discord.Message
    ) -> None:
        """Find my posts that are like this message."""
        await admit(interaction, "search", group="search")
        await interaction.response.defer(ephemeral=True, thinking=True)
        job_id = job_of(interaction, message)
        wanted = Wanted(like=job_id, words="" if job_id else words_of(message))
        page = await found(self.app, interaction, wanted)
        if page is None:
            await interaction.followup.send(nothing(), ephemeral=True)
            return
        await interaction.followup.send(**page, ephemeral=True)


def job_of(interaction: discord.Interaction, message: discord.Message) -> str:
    """The download whose files are in a message of ours; "" for any other message."""
    if message.author.id != interaction.client.user.id:  # type: ignore[union-attr]
        return ""
    ids = (ID.search(file.filename) for file in message.attachments)
    return next((one[0] for one in ids if one), "")


def words_of(message: discord.Message) -> str:
    """The words of a message, without links. Raises Refused if there are none."""
    text = MARKS.sub(" ", message.content)
    try:
        return cleaned(text)
    except Refused:
        raise Refused(_("That message has no text to search for.")) from None


async def found(
    app: App, asked: Any, wanted: Wanted, after: int = 0, key: str = ""
) -> dict[str, Any] | None:
    """A page of the results, as arguments for ``send``; None if there are none."""
    query = await query_for(asked, wanted)
    hits = await archive_of(app).search(query, limit=PER_PAGE + 1, after=after)
    if not hits:
        return None
    page, more = hits[:PER_PAGE], hits[PER_PAGE:]
    view = discord.ui.View(timeout=None)
    for button in jumps(numbered(page, after + 1)):
        view.add_item(button)
    key = key or keep(wanted)
    if more:
        view.add_item(MoreButton(key, page[-1].rank))
    if not wanted.public and asked.guild:
        view.add_item(PostButton(key, after))
    return {"embeds": embeds_of(page, after), "view": view}


def embeds_of(hits: Sequence[Hit], after: int = 0) -> list[discord.Embed]:
    """The posts; those that only perhaps match have a heading."""
    embeds = [shown(n, hit) for n, hit in enumerate(hits, after + 1)]
    for embed, hit in zip(embeds, hits, strict=True):
        if not hit.sure:
            embed.set_author(name=_("Perhaps"))
            break
    return embeds


def keep(wanted: Wanted) -> str:
    """The key under which a search can be gone on with."""
    key = secrets.token_hex(6)
    kept[key] = wanted
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)
    return key


def recall(key: str) -> Wanted:
    """What was looked for. Raises Refused once that is forgotten."""
    if key not in kept:
        raise Refused(_("That search has expired. Search again."))
    return kept[key]


class OfSearch:
    """A button of a page of a search."""

    name: str
    label: str

    def __init__(self, key: str, after: int) -> None:
        custom_id = f"search:{self.name}:{key}:{after}"
        button = discord.ui.Button[Any](label=_(self.label), custom_id=custom_id)
        super().__init__(button)  # type: ignore[call-arg]
        self.key, self.after = key, after

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(match["key"], int(match["after"]))


class MoreButton(
    OfSearch,
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"search:more:(?P<key>[0-9a-f]{12}):(?P<after>\d{1,6})",
):
    """Shows the next posts to the member who clicks."""

    name, label = "more", N_("More")

    async def callback(self, interaction: discord.Interaction) -> None:
        await admit(interaction, "search", group="search")
        wanted = recall(self.key)
        await interaction.response.defer()
        bot: Any = interaction.client
        page = await found(bot.app, interaction, wanted, self.after, self.key)
        shown = page or {"content": _("That is all.")}
        await interaction.followup.send(**shown, ephemeral=True)


class PostButton(
    OfSearch,
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"search:post:(?P<key>[0-9a-f]{12}):(?P<after>\d{1,6})",
):
    """Posts the results in the channel, without those that not everybody there may
    read."""

    name, label = "post", N_("Post here")

    async def callback(self, interaction: discord.Interaction) -> None:
        await admit(interaction, "search", group="search")
        wanted = recall(self.key)
        await interaction.response.defer()
        bot: Any = interaction.client
        query = await query_for(interaction, wanted)
        hits = await archive_of(bot.app).search(query, limit=PER_PAGE, after=self.after)
        open_to_all = await channels_for(interaction, public=True)
        open_hits = [
            one for one in hits if place_of(interaction, one.channel_id) in open_to_all
        ]
        if not open_hits:
            raise Refused(_("Not everybody in this channel may read these posts."))
        view = discord.ui.View(timeout=None)
        for button in jumps(numbered(open_hits)):
            view.add_item(button)
        await interaction.followup.send(embeds=embeds_of(open_hits), view=view)
