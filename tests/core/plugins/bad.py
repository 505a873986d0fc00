"""A command whose arguments cannot be declared."""

import argparse

from bossbot import App, Subcommand, hookimpl


def arguments(parser: argparse.ArgumentParser) -> None:
    raise ZeroDivisionError


async def run_bad(app: App, args: argparse.Namespace) -> int:
    return 0


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("bad", "", run_bad, arguments)]
