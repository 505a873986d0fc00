"""``setup``: ask for the Discord token, check it, write .env, print the invite link."""

import argparse
import getpass
import os
import signal
import sys

from bossbot_plugins._files import write_atomically

from bossbot import HERE, App, Subcommand, hookimpl

KEY = "BOSS_BOT_DISCORD_TOKEN"


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("setup", "ask for the token and write .env", setup)]


async def setup(app: App, args: argparse.Namespace) -> int:
    """The dialogue; returns 0 when a working token is in .env, 2 when given up."""
    import aiohttp
    import discord
    from bossbot_plugins._discord import PERMISSIONS, look_up

    print(
        "Boss-Bot needs the token of a Discord bot.\n"
        "1. Open https://discord.com/developers/applications and press New "
        "Application.\n"
        "2. Under Bot, switch on Message Content Intent, then press Reset Token."
    )
    # Without a terminal, getpass warns of what it cannot hide.
    ask = getpass.getpass if sys.stdin.isatty() else input
    # asyncio would take the first Ctrl-C for itself, and the prompt would go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            token = ask("3. Paste the token here (it is not shown): ")
        except (EOFError, KeyboardInterrupt):
            print("\nNothing was changed.")
            return 2
        token = token.strip().removeprefix("Bot ").strip("\"'")
        if token.count(".") != 2 or not token.isascii():
            print(
                "That is not a bot token, which has three parts with dots between them."
            )
            continue
        try:
            name, link = await look_up(token)
        except discord.LoginFailure:
            print("Discord does not accept this token. Copy all of it again.")
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
            print(
                f"Your environment has another {KEY}, which takes precedence. Unset it."
            )
        print(f"Invite the bot to your server with this link:\n  {link}")
        print(f"It asks for: {', '.join(PERMISSIONS.values())}.")
        return 0


def write_token(token: str) -> None:
    """Put the token into .env, leaving its other lines as they are."""
    path = HERE / ".env"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if not line.lstrip().upper().startswith(KEY)]
    write_atomically(path, "\n".join([*kept, f"{KEY}={token}", ""]).encode())
