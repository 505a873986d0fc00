"""The settings of each server, seen and changed in Discord: /settings view and update."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import asyncio
import contextlib
import hashlib
from collections import Counter
from typing import Any, NamedTuple

import discord
from bossbot_plugins._answers import MAX_DESCRIPTION, reply
from bossbot_plugins._audit import note
from bossbot_plugins._commands import Denied, admit, guard, permission_titles
from bossbot_plugins._discord import tell_owner
from bossbot_plugins._jobs import guild_id_of
from bossbot_plugins._values import (
    Kind,
    Place,
    Wrong,
    quoted,
    read,
    show,
    suggestions,
    takes,
)
from discord import app_commands
from discord.ext import commands
from loguru import logger
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bossbot import (
    App,
    BossBot,
    Plugin,
    PluginConfig,
    Refused,
    Settings,
    _,
    did_you_mean,
    escape,
    hookimpl,
    one_line,
)

Context = commands.Context[Any]
MAX_LACKING = 5  # channels
MAX_CHOICES, MAX_CHOICE = 25, 100  # Discord, 2026-11; the second in characters
PLAIN = Settings.model_validate({})  # of an owner who has set nothing


@hookimpl
def register_commands(bot: BossBot) -> list[commands.Cog]:
    return [GuildSettings(bot)]


@hookimpl
async def run(app: App) -> None:
    """Tell the owner about files that are broken."""
    telling: set[asyncio.Task[None]] = set()

    def on_broken(guild_id: int, why: str) -> None:
        task = asyncio.create_task(tell_broken(app, guild_id, why))
        telling.add(task)
        task.add_done_callback(telling.discard)

    app.guilds.on_broken = on_broken
    try:
        await asyncio.Event().wait()
    finally:
        app.guilds.on_broken = lambda guild_id, why: None


async def tell_broken(app: App, guild_id: int, why: str) -> None:
    """Send the owner a direct message, once for each state of a file."""
    path = app.guilds.folder / f"{guild_id}.toml"
    stamp = path.stat().st_mtime_ns if path.exists() else 0
    state = hashlib.sha256(f"{stamp} {why}".encode()).hexdigest()
    key = f"broken settings:{guild_id}"
    if not app.has_gateway or await app.facts.get(key) == state:
        return
    await app.facts.set(key, state)
    text = _(
        "The settings of a server cannot be used: {path}: {why}\n"
        "Correct that file. Until then its last good state counts, and nobody can change "
        "it with /settings update."
    )
    await tell_owner(app.bot, text.format(path=escape(str(path)), why=escape(why, 800)))


# ── The settings there are ─────────────────────────────────────────────────────────


class Setting(NamedTuple):
    """One setting of every server: a field of a plugin's ``GuildConfig``."""

    app: App
    name: str
    plugin: Plugin
    key: str

    @property
    def field(self) -> FieldInfo:
        return self.plugin.guild_config.model_fields[self.key]

    @property
    def kind(self) -> Kind:
        return Kind.of(self.field.annotation, self.field.metadata)

    @property
    def about(self) -> str:
        return _(self.field.description) if self.field.description else ""

    def table(self, guild_id: int) -> dict[str, Any]:
        """What the server has set of this plugin, as it is stored."""
        table = self.app.guilds.tables(guild_id).get(self.plugin.stem)
        return table if isinstance(table, dict) else {}

    def counts(self, table: dict[str, Any]) -> Any:
        """The value that counts with these settings."""
        return self._within(table, self.plugin.config, self.app.settings)

    def default(self) -> tuple[Any, bool]:
        """The value of a server that has set nothing, and whether it is the owner's."""
        value = self.counts({})
        plain = self._within({}, type(self.plugin.config)(), PLAIN)
        return value, value != plain

    def _within(self, table: dict[str, Any], config: Any, settings: Settings) -> Any:
        try:
            model = self.plugin.guild_config.model_validate(table)
        except ValidationError:  # it was never good; the report says so
            model = self.plugin.guild_config()
        return getattr(model.within(config, settings), self.key)


def settings_of(app: App) -> dict[str, Setting]:
    """Every setting of a server by name. One of an owner's plugin that has the name of
    another one is called ``plugin.field``."""
    own = [p for p in app.plugins.all.values() if p.origin == "yours"]
    ours = [p for p in app.plugins.all.values() if p.origin != "yours"]
    names = Counter(n for p in own for n in p.guild_config.model_fields)
    names.update(
        dict.fromkeys([n for p in ours for n in p.guild_config.model_fields], 9)
    )
    found = {}
    for plugin in [*ours, *own]:
        for key in plugin.guild_config.model_fields:
            bare = plugin.origin != "yours" or names[key] == 1
            name = key if bare else f"{plugin.stem}.{key}"
            found[name] = Setting(app, name, plugin, key)
    return found


def name_in(word: str) -> str:
    """The name of a setting, however a member writes it: "Download-roles:"."""
    return "_".join(word.strip("`:=").casefold().replace("-", "_").split())


def is_setting(app: App, word: str) -> bool:
    return name_in(word) in settings_of(app)


def setting_of(app: App, word: str) -> Setting:
    """The setting that a member names; raises Refused."""
    known = settings_of(app)
    name = name_in(word)
    if name not in known:
        text = _("There is no setting {name}{hint}. /settings view lists them all.")
        hint = did_you_mean(name, known)
        raise Refused(text.format(name=quoted(word), hint=hint))
    return known[name]


# ── The commands ───────────────────────────────────────────────────────────────────


class GuildSettings(commands.Cog, name="Settings"):
    """The settings of this server."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot
        self.app: App = bot.app
        self._turn = asyncio.Lock()

    @guard("settings view", group="settings")
    @commands.hybrid_group(invoke_without_command=True, case_insensitive=True)
    async def settings(self, ctx: Context, *, setting: str = "") -> None:
        """See and change the settings of this server."""
        await self.show(ctx, setting)

    @guard("settings view", group="settings")
    @settings.command(extras={"example": "language"})
    @app_commands.describe(setting="one of them, with its possible values")
    async def view(self, ctx: Context, *, setting: str = "") -> None:
        """Show the settings of this server, or one of them."""
        await self.show(ctx, setting)

    @guard("settings view", group="settings")
    @commands.command(hidden=True)
    async def dls(self, ctx: Context, *, setting: str = "") -> None:
        """Show the settings of this server, or one of them."""
        await self.show(ctx, setting)

    @guard("settings update", group="settings", needs=("manage_guild",))
    @settings.command(extras={"example": "language"})
    @app_commands.describe(
        setting="its name", value="its new value; several with commas; default resets"
    )
    async def update(self, ctx: Context, setting: str, *, value: str) -> None:
        """Change a setting of this server."""
        await ctx.defer(ephemeral=True)  # a member's name may have to be looked up
        text = await self.change(ctx, setting_of(self.app, setting), value)
        await reply(ctx, text)

    async def show(self, ctx: Context, word: str) -> None:
        guild_id, place = guild_id_of(ctx), place_of(self.bot, ctx)
        name, _space, value = word.partition(" ")
        if value and not ctx.interaction and is_setting(self.app, name):
            words = f"{self.update} {name} {one_line(value)[:100]}".replace("`", "'")
            text = _("Did you mean {command}?")
            raise Refused(text.format(command=f"`{ctx.clean_prefix}{words}`"))
        if word:
            embed = one_shown(setting_of(self.app, word), guild_id, place)
        else:
            embed = all_shown(self.app, guild_id)
        if why := self.app.guilds.broken.get(guild_id):
            embed.set_footer(text=broken(one_line(why)[:500]))  # has no mark-up
        await reply(ctx, embed=embed)

    async def change(self, ctx: Context, setting: Setting, words: str) -> str:
        """Change a setting; returns the answer. Raises Refused."""
        app, guild_id, place = self.app, guild_id_of(ctx), place_of(self.bot, ctx)
        plugin, key, guilds = setting.plugin, setting.key, self.app.guilds
        model = plugin.guild_config
        async with self._turn:  # so that the audit log has the old value
            table = setting.table(guild_id)
            if why := guilds.broken.get(guild_id):
                raise Refused(broken(escape(why, 500)))
            before = model.model_validate(table)
            after = model.model_validate({k: v for k, v in table.items() if k != key})
            reset = words.strip().casefold() == "default"
            if not reset:
                known = getattr(before, key)
                after = await checked(setting, table, words, place, known)
            was, told = setting.counts(table), plain(before, key, table)
            line = {"from": told, "to": None if reset else plain(after, key)}
            if reset and key not in table:
                line = {}
            if line:
                await note(app, guild_id, ctx.author.id, setting.name, **line)
            try:
                if reset:
                    await guilds.reset(guild_id, plugin.stem, model, key)
                else:
                    await guilds.set(
                        guild_id, plugin.stem, model, key, getattr(after, key)
                    )
            except Exception as error:
                if line:
                    failed = {"error": f"not stored: {error!r}"}
                    await note(app, guild_id, ctx.author.id, setting.name, **failed)
                raise
            table = setting.table(guild_id)
        logger.bind(guild=guild_id, user=ctx.author.id).info("{} changed", setting.name)
        value, kind = setting.counts(table), setting.kind
        text = _("{name} is now {value} (before: {before}).")
        if reset:
            text = _("{name} is back to its default: {value} (before: {before}).")
        return text.format(
            name=f"`{setting.name}`", value=show(kind, value), before=show(kind, was)
        )

    # Choices

    @view.autocomplete("setting")
    @update.autocomplete("setting")
    async def names(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        known, typed = settings_of(self.app), typed.casefold()
        near = [name for name in known if typed in name.casefold()]
        near.sort(key=lambda name: (not name.casefold().startswith(typed), name))
        return [
            app_commands.Choice(
                name=f"{name}: {known[name].about}"[:MAX_CHOICE], value=name
            )
            for name in near[:MAX_CHOICES]
            if len(name) <= MAX_CHOICE
        ]

    @update.autocomplete("value")
    async def values(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        try:  # names of roles and channels are not for everybody
            needs = ("manage_guild",)
            await admit(
                interaction, "settings update", group="settings", needs=needs, dry=True
            )
            word = str(interaction.namespace.setting or "")
            setting = setting_of(self.app, word)
        except (Denied, Refused, AttributeError):
            return []
        place = Place(self.app, interaction.guild, interaction.user)
        near = suggestions(setting.kind, typed, place)
        near += [word for word in ("default",) if typed.casefold() in word]
        fitting = [one for one in near if len(one) <= MAX_CHOICE]
        return [
            app_commands.Choice(name=one, value=one) for one in fitting[:MAX_CHOICES]
        ]


async def checked(
    setting: Setting, table: dict[str, Any], words: str, place: Place, before: Any
) -> PluginConfig:
    """The plugin's settings with a new value in these words; raises Refused."""
    app, plugin, key, kind = setting.app, setting.plugin, setting.key, setting.kind
    try:
        value = await read(kind, words, place, before)
        after = plugin.guild_config.model_validate({**table, key: value})
    except Wrong as error:
        raise Refused(does_not_fit(setting, place, str(error))) from None
    except ValidationError as error:
        why = [one["msg"] for one in error.errors() if one["type"] == "value_error"]
        wrong = ": ".join([quoted(words), *why])
        raise Refused(does_not_fit(setting, place, wrong)) from None
    new = getattr(after, key)
    allowed = getattr(after.within(plugin.config, app.settings), key)
    if allowed != new:
        text = _(
            "The bot's owner does not allow {value} for {name}. The limit is {allowed}."
        )
        raise Refused(
            text.format(
                value=show(kind, new) if new else "0 (∞)",  # no limit
                name=f"`{setting.name}`",
                allowed=show(kind, allowed),
            )
        )
    return after


def does_not_fit(setting: Setting, place: Place, wrong: str) -> str:
    text = _("{wrong} is not valid. {name} can be {allowed}; or default.")
    return text.format(
        wrong=wrong, name=f"`{setting.name}`", allowed=takes(setting.kind, place)
    )


def plain(config: PluginConfig, key: str, table: dict[str, Any] | None = None) -> Any:
    """A value for the audit log, without secrets; None for a default."""
    if table is not None and key not in table:
        return None
    return config.model_dump(mode="json", include={key})[key]


# ── What is shown ──────────────────────────────────────────────────────────────────


def all_shown(app: App, guild_id: int) -> discord.Embed:
    lines: list[str] = []
    room = MAX_DESCRIPTION - 200
    known = settings_of(app)
    for name, setting in known.items():
        table = setting.table(guild_id)
        value = show(setting.kind, setting.counts(table))
        line = f"`{name}` {value} · {source(setting, table)}"
        if room < len(line):
            more = _("… and {count} more").format(count=len(known) - len(lines))
            lines.append(more)
            break
        room -= len(line) + 1
        lines.append(line)
    return discord.Embed(
        title=_("Settings of this server"),
        description="\n".join(lines) or _("There are none."),
    )


def one_shown(setting: Setting, guild_id: int, place: Place) -> discord.Embed:
    table, kind = setting.table(guild_id), setting.kind
    default, _of_owner = setting.default()
    embed = discord.Embed(title=setting.name, description=setting.about)
    facts = {
        _("Value"): f"{show(kind, setting.counts(table))} · {source(setting, table)}",
        _("Default"): show(kind, default),
        _("Possible values"): takes(kind, place),
        _("Missing permissions"): lacking_for(setting, table, place),
    }
    for name, value in facts.items():
        if value:
            embed.add_field(name=name, value=value, inline=False)
    return embed


def lacking_for(setting: Setting, table: dict[str, Any], place: Place) -> str:
    """The permissions that a plugin lacks for these settings, by channel."""
    missing: dict[int, list[str]] = {}
    with contextlib.suppress(ValidationError, AttributeError):
        config: Any = setting.plugin.guild_config.model_validate(table)
        missing = config.lacks(place.guild) if place.guild else {}
    lines = [f"<#{number}>: {permission_titles(n)}" for number, n in missing.items()]
    more = [_("… and {count} more").format(count=len(lines) - MAX_LACKING)]
    return "\n".join(lines[:MAX_LACKING] + more * (len(lines) > MAX_LACKING))


def source(setting: Setting, table: dict[str, Any]) -> str:
    """Where a value comes from."""
    default, of_owner = setting.default()
    if setting.key in table:
        text = _("this server (default: {default})")
        return text.format(default=show(setting.kind, default))
    return _("the bot's owner") if of_owner else _("default")


def broken(why: str) -> str:
    text = _(
        "The file with this server's settings is broken, so they cannot be changed "
        "now. The last good settings stay in force. The bot's owner can correct the "
        "file: {why}"
    )
    return text.format(why=why)


def place_of(bot: BossBot, ctx: Context) -> Place:
    return Place(bot.app, ctx.guild, ctx.author)
