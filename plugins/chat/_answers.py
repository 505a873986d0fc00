"""Answers to commands, of a size that Discord takes."""

import copy
from typing import Any

import discord
from discord.ext import commands
from discord.ext.commands.view import StringView

MAX_CONTENT = 2000  # Discord, 2026-11: characters
# Of an embed, each, and of all its texts together.
MAX_TITLE, MAX_DESCRIPTION, MAX_FIELDS, MAX_EMBED = 256, 4096, 25, 6000
MAX_NAME, MAX_VALUE = 256, 1024


async def reply(
    ctx: commands.Context[Any],
    text: str = "",
    *,
    private: bool = True,
    embed: discord.Embed | None = None,
    **shown: Any,
) -> discord.Message:
    """Answer a command, as a reply to its message, or to the interaction: there only
    its member sees it, unless it is not ``private``. What is too long is cut."""
    if text:
        shown["content"] = cut(text, MAX_CONTENT)
    if embed:
        shown["embed"] = fitted(embed)
    shown = {name: value for name, value in shown.items() if value is not None}
    if ctx.interaction:
        return await ctx.send(**shown, ephemeral=private)
    reference = ctx.message.to_reference(fail_if_not_exists=False)
    return await ctx.send(**shown, reference=reference, mention_author=False)


def cut(text: str, limit: int) -> str:
    """A text of at most so many characters, cut at the end of a line if it has one."""
    if len(text) <= limit:
        return text
    kept = text[: limit - 2]
    return (kept.rpartition("\n")[0] or kept) + "\n…"


def fitted(embed: discord.Embed) -> discord.Embed:
    """An embed of which Discord takes every part."""
    shown = discord.Embed.from_dict(embed.to_dict())
    shown.title = cut(shown.title, MAX_TITLE) if shown.title else None
    shown.description = (
        cut(shown.description, MAX_DESCRIPTION) if shown.description else None
    )
    fields = [(f.name or "", f.value or "", f.inline) for f in shown.fields]
    shown.clear_fields()
    for name, value, inline in fields[:MAX_FIELDS]:
        name, value = cut(name, MAX_NAME), cut(value, MAX_VALUE)
        if len(shown) + len(name) + len(value) > MAX_EMBED:
            break
        shown.add_field(name=name, value=value, inline=inline)
    if (over := len(shown) - MAX_EMBED) > 0 and shown.description:
        shown.description = cut(shown.description, len(shown.description) - over)
    return shown


def context_of(interaction: discord.Interaction) -> commands.Context[Any]:
    """A context for a click, to ask what its member may do."""
    assert interaction.message
    message = copy.copy(interaction.message)
    message.author = interaction.user
    bot: Any = interaction.client
    ctx = commands.Context(
        message=message,
        bot=bot,
        view=StringView(""),
        prefix="/",
        interaction=interaction,
    )
    interaction._baton = ctx  # where hybrid commands look for it
    return ctx
