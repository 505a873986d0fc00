"""Adds words, an embed and a button to a message, or what Discord does not take."""

from typing import Any, Literal

import discord

from bossbot import Message, PluginConfig, hookimpl


class Config(PluginConfig):
    embed: Literal["good", "refused", "a text"] = "good"


@hookimpl
async def decorate_message(message: Message, config: Config) -> Message:
    message.content += "\nWith love"
    embeds: dict[str, Any] = {
        "good": discord.Embed(title="Look"),
        "refused": discord.Embed(title="Look", url="nowhere"),
        "a text": "a text",
    }
    message.embed = embeds[config.embed]
    message.view = discord.ui.View()
    button = discord.ui.Button[Any](label="Source", url="https://toy.example")
    message.view.add_item(button)
    return message
