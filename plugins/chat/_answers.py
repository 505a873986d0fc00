"""Answers to commands, of a size that Discord accepts."""

import copy
from collections.abc import Iterable
from typing import Any

import discord
from bossbot_plugins._commands import lacked_by_bot
from discord.ext import commands
from discord.ext.commands.view import StringView

MAX_CONTENT = 2000  # Discord, 2026-11: characters
# Of an embed, each, and of all its texts together.
MAX_TITLE, MAX_DESCRIPTION, MAX_FIELDS, MAX_EMBED = 256, 4096, 25, 6000
MAX_NAME, MAX_VALUE = 256, 1024
MAX_BUTTONS = 25  # of a message

Answer = tuple[str, discord.ui.View | None]


async def reply(
    ctx: commands.Context[Any],
    text: str = "",
    *,
    private: bool = True,
    embed: discord.Embed | None = None,
    **shown: Any,
) -> discord.Message:
    """Answer a command, as a reply to its message, or to the interaction: only its
    member sees the latter, unless it is not ``private``. A long text is cut.

    Raises:
        BotMissingPermissions: Discord would drop the embed.
    """
    has_embed = embed or shown.get("embeds")
    if (
        has_embed
        and not ctx.interaction
        and lacked_by_bot(["embed_links"], ctx.channel)
    ):
        raise commands.BotMissingPermissions(["embed_links"])
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


def packed(answers: Iterable[Answer]) -> list[Answer]:
    """Answers in as few messages as hold them, each once; a longer text is cut. Buttons
    of several in one message are numbered, as their lines are. A message with other
    items than buttons that outlive a restart stays alone."""
    groups: list[list[Answer]] = []
    seen = set[tuple[str, ...]]()
    for text, view in answers:
        text = cut(text, MAX_CONTENT - 5)  # a number may come before it
        items = view.children if view else []
        key = (text, *(getattr(item, "custom_id", None) or "" for item in items))
        if key in seen:
            continue
        seen.add(key)
        one = (text, view)
        if groups and _fit([*groups[-1], one]):
            groups[-1].append(one)
        else:
            groups.append([one])
    return [_joined(group) for group in groups]


def _fit(answers: list[Answer]) -> bool:
    """Whether they fit in one message."""
    items = [item for _text, view in answers if view for item in view.children]
    return (
        sum(len(text) + 5 for text, _view in answers) <= MAX_CONTENT
        and len(items) <= MAX_BUTTONS
        and all(isinstance(one, discord.ui.DynamicItem) for one in items)
        and all(isinstance(one.item, discord.ui.Button) for one in items)  # type: ignore[attr-defined]
    )


def _joined(answers: list[Answer]) -> Answer:
    """The answers as one message; see ``packed``."""
    views = [view for _text, view in answers if view]
    if len(views) < 2:
        text = "\n".join(text for text, _view in answers)
        return text, views[0] if views else None
    lines, joined, number = [], discord.ui.View(timeout=None), 0
    for text, view in answers:
        if view:
            number += 1
            text = f"{number}. {text}"
        lines.append(text)
        for item in view.children if view else ():
            button: Any = item.item  # type: ignore[attr-defined]
            button.label = f"{button.label} ({number})"
            joined.add_item(item)
    return "\n".join(lines), joined


def fitted(embed: discord.Embed) -> discord.Embed:
    """An embed within Discord's limits."""
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
    """A context for a click, for checks of its member's rights."""
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
