"""The command `same` says whether the app is of the plugin's own `bossbot`."""

import argparse

import bossbot
from bossbot import App, Subcommand, hookimpl


async def show(app: App, args: argparse.Namespace) -> int:
    print(isinstance(app, bossbot.App), __name__)
    return 0


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("same", "", show)]
