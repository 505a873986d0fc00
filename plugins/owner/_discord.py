"""The bot's name and invite link, and messages to its owner."""

import asyncio
from datetime import UTC, datetime
from functools import partial

import aiohttp
import discord
from bossbot_plugins._reports import block, lines_on
from loguru import logger

from bossbot import App, BossBot, in_thread

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


MAX_MESSAGE = 1900  # characters; Discord takes 2,000
_turn = asyncio.Lock()  # two failures at once cause one message


async def tell_once_a_day(
    app: App, key: str, text: str, name: str = "", lines: list[str] | None = None
) -> bool:
    """Tell the owner something at most once a day (UTC), with the lines of the log that
    have the id ``name``, or else with these. Returns whether it was to be told."""
    today = datetime.now(UTC).date().isoformat()
    async with _turn:
        if await app.facts.get(key) == today:
            return False
        await app.facts.set(key, today)
    if name:
        folder = app.settings.data_dir / "logs"
        lines = await in_thread(partial(lines_on, name, folder, whole=False)) or lines
        text += f"\nMore for a report: `python bossbot.py report {name}`"
    text = text[:MAX_MESSAGE]
    shown = block(lines or [], MAX_MESSAGE - len(text))
    await tell_owner(app.bot, "\n".join(filter(None, [text, shown])))
    return True
