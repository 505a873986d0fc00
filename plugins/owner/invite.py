"""``invite``: print the link that adds the bot to a server."""

import argparse

from bossbot import App, BossbotError, StartError, Subcommand, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("invite", "print the link that invites the bot", invite)]


async def invite(app: App, args: argparse.Namespace) -> int:
    """Print the link, and the permissions it asks for."""
    import aiohttp
    import discord
    from bossbot_plugins._discord import MORE, PERMISSIONS, look_up

    token = app.settings.discord_token
    if not token:
        raise StartError("The token is missing. Run: python bossbot.py setup")
    try:
        name, link = await look_up(token.get_secret_value())
    except discord.LoginFailure:
        raise StartError(
            "Discord does not accept the token. Run: python bossbot.py setup"
        ) from None
    except (OSError, aiohttp.ClientError, discord.HTTPException) as error:
        reason = f"Discord cannot be reached ({error}). Check the network."
        raise BossbotError(reason) from error
    print(f"Invite {name} to a server with this link:\n  {link}")
    print(f"It asks for: {', '.join(PERMISSIONS.values())}.")
    print(f"These settings need more permissions for the bot's role: {MORE}.")
    return 0
