"""Decorates messages with far more than Discord takes."""

import discord

from bossbot import Job, Message, hookimpl


@hookimpl
async def decorate_message(job: Job, message: Message) -> Message:
    message.content += "y" * 5000
    message.embed = discord.Embed(title="t" * 999, description="d" * 9999)
    message.embed.set_author(name="a" * 999).set_footer(text="f" * 100)
    for number in range(40):
        message.embed.add_field(name=f"{number}" * 999, value="v" * 9999)
    return message
