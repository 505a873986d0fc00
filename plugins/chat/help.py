"""/help: lists the commands that a member may use, from the commands themselves."""

# mypy: disable-error-code="arg-type"
# discord.py's types do not know hybrid commands of cogs.

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_args, get_origin

import discord
from bossbot_plugins._answers import context_of, reply
from bossbot_plugins._catalogues import closest
from bossbot_plugins._commands import action_name, admit, guard, signature
from discord import app_commands
from discord.ext import commands
from loguru import logger

import bossbot
from bossbot import PLUGIN_PACKAGE, BossBot, Refused, _, did_you_mean, escape, hookimpl

Context = commands.Context[Any]
AnyCommand = (
    commands.Command[Any, Any, Any]
    | app_commands.Command[Any, Any, Any]
    | app_commands.ContextMenu
)
BLUE = discord.Colour(0x5865F2)
PER_PAGE = 8  # commands
MAX_CHOICES = 25  # Discord, 2026-11
LAST = ("help", "about", "plugin_commands")  # of the plugins
# Examples of what a command takes, by name and by type.
BY_NAME = {
    "url": "https://youtu.be/jNQXAC9IVRw",
    "id": "4f09c1d2aa",
    "command": "download",
    "value": "de",  # of a setting
}
BY_TYPE: dict[Any, str] = {bool: "yes", int: "1", float: "1.5"}


@hookimpl
def register_commands(bot: BossBot) -> list[Any]:
    return [Help(bot), PageButton]


class Help(commands.Cog):
    """What the bot can do."""

    def __init__(self, bot: BossBot) -> None:
        self.bot = bot

    @guard("help", group="help")
    @commands.hybrid_command(extras={"example": "download"})
    @app_commands.describe(command="one command, with its options")
    async def help(self, ctx: Context, *, command: str = "") -> None:
        """List the commands that you may use, or explain one."""
        await show(ctx, command)

    @guard("help", group="help")
    @commands.command(name="dlh", hidden=True)
    async def dlh(self, ctx: Context, *, command: str = "") -> None:
        """List the commands that you may use, or explain one."""
        await show(ctx, command)

    @help.autocomplete("command")
    async def commands_like(
        self, interaction: discord.Interaction, typed: str
    ) -> list[app_commands.Choice[str]]:
        ctx = await Context.from_interaction(cast(Any, interaction))
        word = typed.strip(" /$").lower()
        found = [
            app_commands.Choice(name=entry.in_client, value=entry.name)
            for entry in await entries(ctx)
            if word in entry.name.lower() or word in entry.in_client.lower()
        ]
        return found[:MAX_CHOICES]


async def show(ctx: Context, words: str) -> None:
    known = await entries(ctx)
    found = find(known, words) if words else known
    prefix = "/" if ctx.interaction else ctx.clean_prefix
    if words and len(found) == 1:
        await reply(ctx, embed=await explained(found[0], ctx, prefix))
        return
    if not found:  # or the member may not use it
        hint = did_you_mean(words.lower(), [entry.name for entry in known])
        text = _("There is no command {name} that you may use{hint}.")
        name = escape(words, 50)
        raise Refused(text.format(name=name, hint=hint))
    await reply(ctx, **page(found, 1, ctx.author.id, prefix, pages=not words))


# ── What there is ──────────────────────────────────────────────────────────────────


@dataclass
class Entry:
    """A command, or an entry of a message's menu."""

    name: str  # "queue list"
    plugin: str
    group: str  # its heading
    text: str
    command: AnyCommand
    in_client: str  # the name as the member's Discord shows it: "warteschlange liste"
    others: list[str] = field(default_factory=list)  # other names: "dlq"

    @property
    def is_menu(self) -> bool:
        return isinstance(self.command, app_commands.ContextMenu)

    @property
    def slash(self) -> app_commands.Command[Any, Any, Any] | None:
        """The slash command, if it is one."""
        if isinstance(self.command, app_commands.Command):
            return self.command
        found = getattr(self.command, "app_command", None)
        return found if isinstance(found, app_commands.Command) else None

    @property
    def words(self) -> commands.Command[Any, Any, Any] | None:
        """The prefix command, if it is one."""
        return self.command if isinstance(self.command, commands.Command) else None


async def entries(ctx: Context) -> list[Entry]:
    """Everything that the member may use here, plugin by plugin."""
    every = [entry_of(command, ctx) for command in all_commands(ctx.bot)]
    shown: list[Entry] = []
    for entry in every:
        if not is_hidden(entry.command) and await may_use(entry.command, ctx, every):
            shown.append(entry)
    by_action = {action_name(entry.words): entry for entry in shown if entry.words}
    for entry in every:  # "dlq", and "queue" itself
        action = action_name(entry.command)
        if entry.words and action and (main := by_action.get(action)):
            names = [entry.name, *entry.words.aliases]
            main.others += [name for name in names if name != main.name]
    for entry in shown:
        entry.others.sort()

    def place(entry: Entry) -> tuple[Any, ...]:
        return (entry.plugin in LAST, entry.plugin, entry.is_menu, entry.name)

    return sorted(shown, key=place)


def all_commands(bot: Any) -> Iterator[AnyCommand]:
    """Prefix, slash and menu commands, each once."""
    seen = set()
    for command in bot.walk_commands():
        seen.add(getattr(command, "app_command", None))
        yield command
    for kind in discord.AppCommandType:
        for entry in bot.tree.walk_commands(type=kind):
            hybrid = getattr(entry, "wrapped", None) is not None
            if not hybrid and not isinstance(entry, app_commands.Group):
                yield entry


def is_hidden(command: AnyCommand) -> bool:
    """A second name, or a group, whose commands are listed."""
    group = isinstance(command, commands.Group) and bool(command.commands)
    return group or bool(getattr(command, "hidden", False))


def entry_of(command: AnyCommand, ctx: Context) -> Entry:
    module = getattr(command, "module", None) or command.callback.__module__
    package, _dot, rest = module.partition(".")
    stem = rest.partition(".")[0] if package == PLUGIN_PACKAGE else package
    cog = getattr(command, "cog", None)
    group = cog.qualified_name if cog else stem.replace("_", " ").capitalize()
    if isinstance(command, app_commands.ContextMenu):
        text = (inspect.getdoc(command.callback) or "").partition("\n\n")[0]
    elif isinstance(command, app_commands.Command):
        text = command.description
    else:
        text = command.short_doc
    name = command.qualified_name
    shown = name_in_client(command, ctx)
    return Entry(name, stem, group, " ".join(text.split()), command, shown)


def name_in_client(command: AnyCommand, ctx: Context) -> str:
    """A command's name in the language of its member's Discord, by which it is found
    there; in the server's language when that is not known, and English for commands."""
    menu = isinstance(command, app_commands.ContextMenu)
    name = command.qualified_name
    if ctx.interaction is None:
        return _(name) if menu else name
    catalogues = bossbot.catalogues
    catalogue = catalogues.get(closest(ctx.interaction.locale.value, catalogues))
    if catalogue is None:
        return name
    if menu:
        return catalogue.gettext(name)
    return " ".join(catalogue.pgettext("name", word) for word in name.split())


async def may_use(command: AnyCommand, ctx: Context, every: Sequence[Entry]) -> bool:
    """Whether the member may use a command, by its dry checks."""
    try:
        if isinstance(command, commands.Command):
            return await command.can_run(ctx)
        if like := action_name(command):
            found = [e.words for e in every if e.words and action_name(e.words) == like]
            return bool(found) and await may_use(found[0], ctx, every)
        checks = command.checks
        if ctx.interaction is None:  # they take nothing else
            return not checks
        for check in checks:
            if not await discord.utils.maybe_coroutine(check, ctx.interaction):
                return False
        return True
    except (commands.CommandError, app_commands.AppCommandError):
        return False
    except Exception as error:  # the boundary of a plugin
        logger.opt(exception=error).error(
            "a check of {} failed", command.qualified_name
        )
        return False


def find(known: Sequence[Entry], words: str) -> list[Entry]:
    """The command of a name, or those of a group; none if there is none."""
    name = " ".join(words.lower().strip("/$ ").split())
    exact = [e for e in known if name in (e.name.lower(), e.in_client.lower())]
    group = f"{name} "
    inner = [
        e for e in known if group in (e.name[: len(group)], e.in_client[: len(group)])
    ]
    return exact or inner or [e for e in known if name in e.others][:1]


# ── How it looks ───────────────────────────────────────────────────────────────────


def page(
    found: Sequence[Entry], number: int, user_id: int, prefix: str, pages: bool = True
) -> dict[str, Any]:
    """A page of the list, the nearest one to ``number``: an embed, and buttons where
    there are more."""
    count = max(-(-len(found) // PER_PAGE), 1) if pages else 1
    number = min(max(number, 1), count)
    shown = found[(number - 1) * PER_PAGE : number * PER_PAGE] if pages else found
    lines, group = [], ""
    for entry in shown:
        if entry.group != group:
            group = entry.group
            lines.append(f"\n**{escape(_(group), 100)}**")
        lines.append(f"`{form(entry, prefix)}` {escape(_(entry.text), 150)}")
        if line := example(entry, prefix):
            lines.append(f"-# {_('Example:')} `{line}`")
    title = _("What you can do here")
    embed = discord.Embed(title=title, description="\n".join(lines), colour=BLUE)
    sample = f"{prefix}help {shown[0].name}"
    hint = _("{command} explains one.").format(command=sample)
    if count == 1:
        embed.set_footer(text=hint)
        return {"embed": embed}
    place = _("Page {page} of {pages}").format(page=number, pages=count)
    embed.set_footer(text=f"{place} · {hint}")
    view = discord.ui.View(timeout=None)
    view.add_item(PageButton(user_id, "previous", number - 1, number > 1))
    view.add_item(PageButton(user_id, "next", number + 1, number < count))
    return {"embed": embed, "view": view}


async def explained(entry: Entry, ctx: Context, prefix: str) -> discord.Embed:
    """Everything about a command."""
    doc = inspect.getdoc(entry.command.callback) or entry.text
    text = "\n\n".join(" ".join(part.split()) for part in doc.split("\n\n"))
    embed = discord.Embed(
        title=form(entry, prefix),
        description=escape(_(text), 1000),
        colour=BLUE,
    )
    if entry.slash and entry.slash.parameters:
        lines = []
        for one in entry.slash.parameters:
            told = "" if str(one.description) == "…" else f" {_(str(one.description))}"
            choices = ", ".join(f"`{choice.name}`" for choice in one.choices)
            told = f"{told}: {choices}" if choices else told
            need = f" ({_('needed')})" if one.required else ""
            lines.append(f"`{one.display_name}`{told}{need}")
        embed.add_field(name=_("Options"), value="\n".join(lines), inline=False)
    if sample := example(entry, prefix):
        embed.add_field(name=_("Example"), value=f"`{sample}`", inline=False)
    dollar = str((await ctx.bot.get_prefix(ctx.message))[-1])
    forms = [f"{dollar}{name}" for name in entry.others]
    if entry.words and prefix == "/":
        forms.insert(0, form(entry, dollar))
    elif entry.slash and prefix != "/":
        forms.insert(0, form(entry, "/"))
    if forms:
        shown = ", ".join(f"`{one}`" for one in forms)
        embed.add_field(name=_("Same as"), value=shown, inline=False)
    return embed


def form(entry: Entry, prefix: str) -> str:
    """How a command is written: "/queue cancel id", "$queue cancel <id>"."""
    if isinstance(entry.command, app_commands.ContextMenu):
        return _("right-click a message > Apps > {name}").format(name=entry.in_client)
    if entry.slash and (prefix == "/" or not entry.words):
        takes = [
            one.display_name if one.required else f"[{one.display_name}]"
            for one in entry.slash.parameters
        ]
        return " ".join([f"/{entry.in_client}", *takes])
    assert entry.words
    return f"{prefix.strip('/')}{entry.name} {signature(entry.words)}".strip()


def example(entry: Entry, prefix: str) -> str:
    """A command as a member would write it, "" for an entry of a menu. Its first value is
    in its ``extras``, as "example"; the others are made up."""
    if isinstance(entry.command, app_commands.ContextMenu):
        return ""
    values = made_up(entry)
    if given := entry.command.extras.get("example"):
        values[next(iter(values), "")] = str(given)
    needed = [(name, value) for name, value in values.items() if value]
    if entry.slash and (prefix == "/" or not entry.words):
        return " ".join([f"/{entry.in_client}", *(f"{n}:{v}" for n, v in needed)])
    return " ".join([f"{prefix.strip('/')}{entry.name}", *(v for _n, v in needed)])


def made_up(entry: Entry) -> dict[str, str]:
    """Values that a command takes, "" for those that may be left out."""
    if not entry.words:
        assert entry.slash
        return {
            one.display_name: BY_NAME.get(one.name, one.name) if one.required else ""
            for one in entry.slash.parameters
        }
    values = {}
    for one in entry.words.clean_params.values():
        kind = one.annotation
        value = BY_NAME.get(one.name) or BY_TYPE.get(kind) or one.name
        if get_origin(kind) is Literal:
            value = str(get_args(kind)[0])
        values[one.displayed_name or one.name] = value if one.required else ""
    return values


class PageButton(
    discord.ui.DynamicItem[discord.ui.Button[Any]],
    template=r"help:(?P<user>\d{1,20}):(?P<name>previous|next):(?P<page>\d{1,3})",
):
    """Shows another page of the list to the one who asked."""

    def __init__(self, user_id: int, name: str, page: int, useful: bool = True) -> None:
        labels = {"previous": _("Previous"), "next": _("Next")}
        custom_id = f"help:{user_id}:{name}:{page}"
        super().__init__(
            discord.ui.Button(
                label=labels[name], custom_id=custom_id, disabled=not useful
            )
        )
        self.user_id, self.page = user_id, page

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction, item: Any, match: re.Match[str], /
    ) -> Self:
        return cls(int(match["user"]), match["name"], int(match["page"]))

    async def callback(self, interaction: discord.Interaction) -> None:
        if interaction.user.id != self.user_id:
            raise Refused(_("This list is somebody else's. Ask for your own: /help"))
        await admit(interaction, "help", group="help", dry=True)
        ctx = context_of(interaction)
        private = bool(interaction.message and interaction.message.flags.ephemeral)
        prefix = "/" if private else str((await ctx.bot.get_prefix(ctx.message))[-1])
        found = await entries(ctx)
        shown = page(found, self.page, self.user_id, prefix)
        await interaction.response.edit_message(**{"view": None, **shown})
