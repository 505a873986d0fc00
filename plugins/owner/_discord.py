"""The bot's name and invite link, and messages to its owner."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256

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


async def tell_owner(bot: BossBot, text: str, nonce: str = "") -> bool:
    """Send a direct message to the owner, or the team's owner; two with one nonce are
    one. A failure is only logged. Returns False if a later try may succeed."""
    try:
        application = await bot.application_info()
        team = application.team
        owner_id = team.owner_id if team and team.owner_id else application.owner.id
        owner = await bot.fetch_user(owner_id)
        await (owner.send(text, nonce=nonce) if nonce else owner.send(text))
    except (OSError, aiohttp.ClientError, discord.DiscordException) as error:
        logger.warning("no message reached the owner: {!r}", error)
        # Whoever takes no messages will not take the next one, either.
        return isinstance(error, discord.HTTPException) and error.status < 429
    return True


MAX_MESSAGE = 1900  # characters; Discord takes 2,000
RETRY_S = 60.0  # while Discord is out of reach
FACT_S = 10.0  # for the queue of several machines to answer
_turn = asyncio.Lock()  # two failures at once cause one message


async def tell_once_a_day(
    app: App, key: str, text: str, name: str = "", lines: Sequence[str] = ()
) -> bool:
    """Send the owner a text at most once a day (UTC), with the lines of the log that
    have the id ``name``, or else with these. Returns whether it was sent, and waits as
    long as Discord is out of reach."""
    today = datetime.now(UTC).date().isoformat()
    async with _turn:
        before = ""
        # The message may be about a full disk, which has no room for facts, either.
        with logger.catch(level="WARNING", message="the owner may be told again"):
            async with asyncio.timeout(FACT_S):
                before = await app.facts.get(key)
        if before == today:
            return False
        if name:
            folder = app.settings.data_dir / "logs"
            found = await in_thread(partial(lines_on, name, folder, whole=False))
            lines = found or lines
            text += f"\nMore for a report: `python bossbot.py report {name}`"
        text = text[:MAX_MESSAGE]
        shown = block(lines, MAX_MESSAGE - len(text))
        message = "\n".join(filter(None, [text, shown]))
        turn = f"{key} {before} {today}"  # the same one after a crash
        nonce = sha256(turn.encode()).hexdigest()[:24]  # Discord takes 25
        while not await tell_owner(app.bot, message, nonce):
            await asyncio.sleep(RETRY_S)
        with logger.catch(level="WARNING", message="the owner may be told again"):
            async with asyncio.timeout(FACT_S):
                await app.facts.set(key, today)
    return True
