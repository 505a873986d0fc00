"""Answers to members when a command, a button, a menu or a form fails, and the log
lines about it."""

import contextlib
import difflib
import errno
import functools
import re
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import discord
from bossbot_plugins._commands import (
    Asked,
    interaction_of,
    lacked_by_bot,
    lacking,
    permission_titles,
    refused,
    signature,
    user_of,
)
from bossbot_plugins._refusals import REFUSALS, UNREACHABLE
from discord import app_commands
from discord.ext import commands
from loguru import logger

from bossbot import SENTENCES, BossbotError, Cause, Refused, _, escape

RED = discord.Colour(0xED4245)
MAX_TEXT = 1000  # characters of a sentence
DISCONNECTED = (aiohttp.ClientError, ConnectionError)
# Discord, 2026-11: the codes of an interaction that can no longer be answered.
EXPIRED = (10015, 10062, 50027)
ALREADY_ANSWERED = 40060
# No access, no permission; and what an embed becomes that the bot may not send.
FORBIDDEN = (50001, 50006, 50013)
# What the answers to commands can take.
NEEDED = (
    *("view_channel", "send_messages", "embed_links", "attach_files"),
    "read_message_history",
)
MIN_TYPO = 3  # letters of a word that can be a misspelt command


async def answer_error(asked: Asked, error: BaseException) -> None:
    """Answer a failure: a refusal in its own words, anything else with an id, under
    which the log has the traceback."""
    error = cause_of(error)
    if isinstance(error, Refused):
        await refused(asked)
    if isinstance(error, (Refused, commands.CheckFailure, app_commands.CheckFailure)):
        await _tell(asked, refusal(error))
        return
    number = secrets.token_hex(4)
    level = "ERROR"
    if isinstance(error, (discord.DiscordException, *DISCONNECTED)):
        level = "DEBUG" if isinstance(error, MISTAKES) else "WARNING"
    where = asked.guild.id if asked.guild else 0
    log = logger.bind(guild=where, user=user_of(asked).id)
    what = f"{type(error).__name__}: {error}"
    log.opt(exception=error).log(
        level, "error {} in {}: {}", number, name_of(asked), what
    )
    text, told = sentence(asked, error), _("Error {id}").format(id=number)
    embed = discord.Embed(description=text, colour=RED)
    embed.set_footer(text=told)
    await _tell(asked, f"{text}\n{told}", embed)


def answers_errors(
    method: Callable[..., Coroutine[Any, Any, Any]], again: bool = False
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A method that gets an interaction, with answers to its errors, which discord.py
    would only log; it then returns None, or raises the error ``again``."""

    if hasattr(method, "answers_errors"):
        return method

    @functools.wraps(method)
    async def call(*arguments: Any) -> Any:
        try:
            return await method(*arguments)
        except Exception as error:  # the boundary of a command
            for asked in arguments:
                if isinstance(asked, discord.Interaction):
                    await answer_error(asked, error)
            if again:
                raise
            return None

    call.answers_errors = True  # type: ignore[attr-defined]
    return call


# ── What it was ────────────────────────────────────────────────────────────────────

MISTAKES = (
    commands.UserInputError,
    commands.CommandOnCooldown,
    commands.MaxConcurrencyReached,
    commands.DisabledCommand,
    app_commands.TransformerError,
    app_commands.CommandNotFound,
    app_commands.CommandSignatureMismatch,
)


def cause_of(error: BaseException) -> BaseException:
    """The original error, without discord.py's wrappers."""
    while isinstance(original := getattr(error, "original", None), BaseException):
        error = original
    return error


def name_of(asked: Asked) -> str:
    """The name of a command, for the log: "/queue list", "a button"..."""
    if isinstance(asked, commands.Context):
        return f"{asked.prefix}{asked.command or asked.invoked_with}"
    if asked.command:
        return f"/{asked.command.qualified_name}"
    return f"an interaction of type {asked.type.name}"


def refusal(error: BaseException) -> str:
    """The words of a refusal."""
    match error:
        case commands.MissingPermissions() | app_commands.MissingPermissions():
            names = permission_titles(error.missing_permissions)
            return _("You may not do that here. You need {permissions}.").format(
                permissions=names
            )
        case commands.BotMissingPermissions() | app_commands.BotMissingPermissions():
            return lacks(error.missing_permissions)
        case commands.NotOwner():
            return _("Only the bot's owner may do that.")
        case commands.NoPrivateMessage() | app_commands.NoPrivateMessage():
            return _("That only works on a server.")
        case commands.PrivateMessageOnly():
            return _("That only works in direct messages.")
    own = type(error) not in (commands.CheckFailure, app_commands.CheckFailure)
    return str(error)[:MAX_TEXT] if own and str(error) else _("You may not do that.")


def sentence(asked: Asked, error: BaseException) -> str:
    """A sentence with the failure, and the member's next step."""
    match error:
        case commands.UserInputError() | app_commands.TransformerError():
            return f"{mistake(error)}\n{usage(asked)}".strip()
        case app_commands.CommandNotFound() | app_commands.CommandSignatureMismatch():
            return _("That command has changed. Restart Discord, and use it again.")
        case commands.DisabledCommand():
            return _("That command is switched off.")
        case commands.MaxConcurrencyReached():
            return _("That is under way already. Try again when it is done.")
        case discord.HTTPException():
            return discords_no(asked, error)
        case discord.RateLimited() | aiohttp.ClientError() | ConnectionError():
            return _("Discord cannot be reached at the moment. Try again in a minute.")
        case TimeoutError():
            return _("That took too long and was stopped. Try again later.")
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _(SENTENCES[Cause.DISK_FULL])
        case BossbotError() | commands.CommandOnCooldown():
            return escape(str(error), MAX_TEXT)
    return _(SENTENCES[Cause.INTERNAL])


def mistake(error: BaseException) -> str:
    """The mistake in the words of a command."""
    match error:
        case commands.MissingRequiredArgument() | commands.MissingRequiredAttachment():
            return _("Something is missing: {name}.").format(
                name=f"`{error.param.name}`"
            )
        case commands.TooManyArguments():
            return _("There is one word too many.")
        case commands.BadLiteralArgument():
            return _("{name} is one of: {choices}.").format(
                name=f"`{error.param.name}`",
                choices=", ".join(f"`{one}`" for one in error.literals),
            )
        case commands.RangeError():
            least, most = error.minimum, error.maximum
            return _("That must be between {least} and {most}.").format(
                least="…" if least is None else f"{least:g}",
                most="…" if most is None else f"{most:g}",
            )
        case commands.BadBoolArgument():
            return _("Write yes or no instead of {value}.").format(
                value=escape(error.argument, 100)
            )
        case commands.ArgumentParsingError():
            return _("The quotation marks in that do not match.")
        case commands.BadUnionArgument() | app_commands.TransformerError():
            return _("That is not one of the possible values.")
        case commands.BadArgument() if isinstance(error.__cause__, ValueError):
            return _("That is not one of the possible values.")
        case commands.BadArgument() if hasattr(error, "argument"):
            return _("There is no {value}.").format(
                value=escape(str(error.argument), 100)
            )
    return escape(str(error), MAX_TEXT)


def usage(asked: Asked) -> str:
    """How a prefix command is written: "`$queue cancel <id>`"; "" for the others, which
    Discord explains."""
    if (
        not isinstance(asked, commands.Context)
        or asked.interaction
        or not asked.command
    ):
        return ""
    command = asked.command
    words = f"{asked.clean_prefix}{command.qualified_name} {signature(command)}"
    return f"`{words.strip()}`"


def discords_no(asked: Asked, error: discord.HTTPException) -> str:
    """The meaning of a refusal by Discord."""
    if error.code in EXPIRED:
        return _("That took too long, so Discord dropped my answer. Ask again.")
    if text := REFUSALS.get(error.code):
        return _(text)
    if error.code in FORBIDDEN:
        if missing := missing_here(asked):
            return lacks(missing)
        return _("Discord does not let me do that here.")
    if error.status == 404:
        return _("That is no longer there.")
    if error.status >= 500 or error.status == 429:
        return _("Discord cannot be reached at the moment. Try again in a minute.")
    return _("Discord did not accept my answer.")


def missing_here(asked: Asked) -> list[str]:
    """The permissions for answers that the bot lacks in this channel."""
    if asked.guild is None:
        return []
    if isinstance(asked, discord.Interaction):
        return lacking(NEEDED, asked.channel, asked.app_permissions)
    return lacked_by_bot(NEEDED, asked.channel)


def lacks(missing: list[str]) -> str:
    return _("I cannot do that here. Ask an admin to give me: {permissions}.").format(
        permissions=permission_titles(missing)
    )


# ── Did you mean ───────────────────────────────────────────────────────────────────


async def suggest(context: commands.Context[Any]) -> None:
    """Answer an unknown command if it looks like a misspelt one that its member may
    use, or is a link; say nothing to "$5" and "$lol"."""
    bot, word = context.bot, (context.invoked_with or "").lower()
    names = {
        name: command
        for command in bot.commands
        if not command.hidden
        for name in (command.name, *command.aliases)
    }
    name = misspelt(word, list(names))
    if re.match("https?://", word):  # after the prefix or the bot's name
        name = "download"
    if not name:
        return
    with contextlib.suppress(commands.CommandError):
        if name in names and await names[name].can_run(context):
            meant = f"`{context.clean_prefix}{name}`"
            await _tell(context, _("Did you mean {command}?").format(command=meant))


def misspelt(word: str, known: list[str]) -> str:
    """The name that a word is a misspelling of, or "". Of short words, most are others
    than the commands that differ from them in one letter."""
    if not re.fullmatch(rf"[a-z][a-z_-]{{{MIN_TYPO - 1},}}", word):
        return ""
    for name in difflib.get_close_matches(word, known, 3, 0.75):
        other = len(word) == len(name) < 5 and sorted(word) != sorted(name)
        if not other:
            return name
    return ""


# ── Saying so ──────────────────────────────────────────────────────────────────────


async def _tell(asked: Asked, text: str, embed: discord.Embed | None = None) -> None:
    """Answer with the embed, or else the text: only the member sees it where that can
    be. When the interaction is over it goes to the channel, and when that may not be
    written to, to the member."""
    shown: dict[str, Any] = {"embed": embed} if embed else {"content": text}
    interaction = interaction_of(asked)
    try:
        if interaction and await _tell_privately(interaction, text, shown):
            return
        if interaction:
            channel: Any = asked.channel
            await channel.send(f"{user_of(asked).mention} {text}")
            return
        assert isinstance(asked, commands.Context)
        if "embed_links" in missing_here(asked):
            shown = {"content": text}
        reference = asked.message.to_reference(fail_if_not_exists=False)
        try:
            await asked.send(**shown, reference=reference, mention_author=False)
        except discord.Forbidden:
            if asked.guild:
                where = f"<#{asked.channel.id}>"
                await asked.author.send(f"{where}: {text}")
    except UNREACHABLE as error:
        logger.warning("an answer could not be sent: {!r}", error)


async def _tell_privately(
    interaction: discord.Interaction, text: str, shown: dict[str, Any]
) -> bool:
    """Answer an interaction; False when that cannot be done any more."""
    response = interaction.response
    if interaction.type is discord.InteractionType.autocomplete:
        if not response.is_done():
            choices = _as_choice(interaction, text) if "embed" in shown else []
            await response.autocomplete(choices)
        return True
    if not response.is_done():
        try:
            await response.send_message(**shown, ephemeral=True)
            return True
        except discord.HTTPException as error:
            if error.code != ALREADY_ANSWERED:
                return False
    try:
        await interaction.followup.send(**shown, ephemeral=True)
        return True
    except discord.HTTPException:
        return False


def _as_choice(interaction: discord.Interaction, text: str) -> list[Any]:
    """A text as the only choice of an autocomplete, where words are typed; it stands for
    what is there already."""
    data: Any = interaction.data
    options = list(data.get("options", ()))
    for option in options:  # those of a group's command are inside
        options += option.get("options", ())
    kind, name = discord.AppCommandOptionType.string.value, " ".join(text.split())
    return [
        app_commands.Choice(name=name[-100:], value=one["value"][:100] or "-")
        for one in options
        if one.get("focused") and one["type"] == kind
    ]
