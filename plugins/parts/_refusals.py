"""How Discord fails, and what its refusals mean."""

import aiohttp
import discord

from bossbot import N_

# What keeps a message from Discord, and is no fault of the bot.
UNREACHABLE = (discord.DiscordException, OSError, aiohttp.ClientError)
LOCKED = N_("This thread is archived or locked. Ask a moderator to open it.")
# By Discord's codes.
REFUSALS = {
    10003: N_("The channel this was asked for in does not exist any more."),
    20009: N_(
        "Discord takes that for explicit content, which it does not let me post here."
    ),
    50083: LOCKED,
    160005: LOCKED,
    50278: N_("I cannot write to you: we have no server in common. Ask in a server."),
    200000: N_("The filters of this server (AutoMod) do not let that message through."),
    240000: N_("Discord's filter of harmful links does not let that message through."),
}
