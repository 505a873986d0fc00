"""Discord's failures, and the meaning of its refusals."""

import aiohttp
import discord

from bossbot import N_

# Errors that keep a message from Discord, but are not the bot's fault.
UNREACHABLE = (discord.DiscordException, OSError, aiohttp.ClientError)
LOCKED = N_("This thread is archived or locked. Ask a moderator to open it.")
# By Discord's codes.
REFUSALS = {
    10003: N_("The channel of that request does not exist any more."),
    20009: N_("Discord flags that as explicit content, so I cannot post it here."),
    50083: LOCKED,
    160005: LOCKED,
    50278: N_("I cannot write to you, since we share no server. Ask on a server."),
    200000: N_("This server's filters (AutoMod) blocked that message."),
    240000: N_("Discord's filter for harmful links blocked that message."),
}
