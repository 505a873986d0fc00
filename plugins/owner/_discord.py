"""The bot's name and invite link, and messages to its owner."""

import aiohttp
import discord
from loguru import logger

from bossbot import BossBot

# What posting files takes, and no more; the words for people.
PERMISSIONS = {
    "view_channel": "View Channels",
    "send_messages": "Send Messages",
    "send_messages_in_threads": "Send Messages in Threads",
    "embed_links": "Embed Links",
    "attach_files": "Attach Files",
    "read_message_history": "Read Message History",
}
# What only some settings of a server need, and the link does not ask for.
MORE = (
    "Manage Messages (delete_request, suppress_preview), "
    "Create Public Threads (thread_above), Add Reactions (auto_links)"
)


async def look_up(token: str) -> tuple[str, str]:
    """The bot's name and its invite link, as Discord has them.

    Raises:
        discord.LoginFailure: the token is wrong.
    """
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    async with discord.Client(intents=discord.Intents(guilds=True)) as client:
        await client.login(token)
        assert client.application_id and client.user
        link = discord.utils.oauth_url(
            client.application_id,
            permissions=discord.Permissions(**dict.fromkeys(PERMISSIONS, True)),
            scopes=("bot", "applications.commands"),
        )
        return client.user.name, link


async def tell_owner(bot: BossBot, text: str) -> None:
    """Send the owner a direct message; a failure is only logged."""
    try:
        application = await bot.application_info()
        team = application.team
        owner_id = team.owner_id if team and team.owner_id else application.owner.id
        owner = await bot.fetch_user(owner_id)
        await owner.send(text)
    except (OSError, aiohttp.ClientError, discord.DiscordException) as error:
        logger.warning("no message reached the owner: {!r}", error)
