"""A command that says whether garbage is collected while commands run."""

import argparse
import gc

from bossbot import App, Subcommand, hookimpl


async def garbage(app: App, args: argparse.Namespace) -> int:
    print(gc.isenabled())
    return 0


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("garbage", "tell it", garbage)]
