"""Adds the title to a message, and an embed with it."""

import discord

from bossbot import Job, Message, hookimpl


@hookimpl
async def decorate_message(job: Job, message: Message) -> Message:
    message.content += f"\n{job.title}"
    message.embed = discord.Embed(title=job.title)
    return message
