"""Switches of commands: a word after a prefix command, a yes or no of a slash command."""

from typing import Any, ClassVar

import discord
from discord import app_commands
from discord.ext import commands

from bossbot import Refused, _, did_you_mean, escape

# In place of "| None = None", which would pass a word on that cannot be converted, until
# it is one too many.
NOTHING: Any = commands.parameter(default=None)


class Word(app_commands.Transformer, commands.Converter[str]):
    """A switch, which is its ``word`` when it is on. Those of one command share their
    ``words``, so that they may come in any order."""

    word: ClassVar[str]
    words: ClassVar[tuple[str, ...]]

    @property
    def type(self) -> discord.AppCommandOptionType:
        """See ``Transformer``."""
        return discord.AppCommandOptionType.boolean

    async def transform(self, interaction: discord.Interaction, value: Any, /) -> Any:
        """See ``Transformer``."""
        return self.word if value else None

    async def convert(self, ctx: commands.Context[Any], argument: str) -> str:
        """See ``Converter``."""
        if argument.lower() not in self.words:
            text = _("Choose one of these: {words}.").format(
                words=", ".join(self.words)
            )
            raise commands.BadArgument(text)
        return argument.lower()


class Running(Word):
    word = "running"
    words = ("running",)


class Messages(Word):
    word = "messages"
    words = ("messages", "everywhere")


class Everywhere(Messages):
    word = "everywhere"


def check_words(group: commands.Group[Any, Any, Any], words: str) -> None:
    """Refuse what follows a group's name and is none of its commands."""
    if words:
        known = sorted(command.name for command in group.commands)
        hint = did_you_mean(words.split()[0], known)
        text = _("{word} is not one of these: {words}{hint}")
        word = escape(words, 50)
        raise Refused(text.format(word=word, words=", ".join(known), hint=hint))
