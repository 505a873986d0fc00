"""``setup``: ask for the Discord token, check it, write .env, print the invite link."""

import argparse
import getpass
import os
import signal

import aiohttp
import discord

from bossbot import HERE, Pipeline, Subcommand, hookimpl, write_atomically

KEY = "BOSS_BOT_DISCORD_TOKEN"
# What posting files takes, and no more.
PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    embed_links=True,
    attach_files=True,
    read_message_history=True,
)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("setup", "ask for the token and write .env", setup)]


async def setup(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """The dialogue; returns 0 when a working token is in .env, 2 when given up."""
    print(
        "Boss-Bot needs the token of a Discord bot.\n"
        "1. Open https://discord.com/developers/applications and press New "
        "Application.\n"
        "2. Under Bot, switch on Message Content Intent, then press Reset Token."
    )
    # asyncio would take the first Ctrl-C for itself, and the prompt go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            token = getpass.getpass("3. Paste the token here (it is not shown): ")
        except (EOFError, KeyboardInterrupt):
            print("\nNothing was changed.")
            return 2
        token = token.strip().removeprefix("Bot ").strip("\"'")
        if token.count(".") != 2 or not token.isascii():
            print("That is no bot token: it has three parts, with dots between them.")
            continue
        try:
            name, link = await look_up(token)
        except discord.LoginFailure:
            print("Discord does not know this token. Copy it again, all of it.")
            continue
        except (OSError, aiohttp.ClientError, discord.HTTPException) as error:
            print(f"Discord cannot be reached ({error}). Is there a network?")
            return 2
        try:
            write_token(token)
        except OSError as error:
            print(f"{HERE / '.env'}: {error.strerror}. Make it writable, or set {KEY}.")
            return 2
        print(f"Hello, {name}! The token is in {HERE / '.env'}.")
        if os.environ.pop(KEY, "") not in ("", token):
            print(f"Your environment has another {KEY}, which counts more: unset it.")
        print(f"Invite the bot to your server with this link:\n  {link}")
        return 0


async def look_up(token: str) -> tuple[str, str]:
    """The bot's name and its invite link, asked of Discord.

    Raises:
        discord.LoginFailure: the token is wrong.
    """
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    async with discord.Client(intents=discord.Intents(guilds=True)) as client:
        await client.login(token)
        assert client.application_id and client.user
        link = discord.utils.oauth_url(
            client.application_id,
            permissions=PERMISSIONS,
            scopes=("bot", "applications.commands"),
        )
        return client.user.name, link


def write_token(token: str) -> None:
    """Put the token into .env, leaving its other lines as they are."""
    path = HERE / ".env"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if not line.lstrip().upper().startswith(KEY)]
    write_atomically(path, "\n".join([*kept, f"{KEY}={token}", ""]).encode())
