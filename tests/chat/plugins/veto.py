"""Refuses some links, answers others itself, and refuses every upload."""

import discord

from bossbot import Job, MediaFile, Refused, hookimpl


@hookimpl
async def check_job(job: Job) -> None:
    if "veto" in job.url:
        raise Refused("Not on a Monday.")


@hookimpl
def answer_job(job: Job) -> str | None:
    return "It is here." if "known" in job.url else None


@hookimpl
async def check_upload(files: list[MediaFile], channel: discord.TextChannel) -> None:
    raise Refused(f"{len(files)} files are too many for {channel.id}.")
