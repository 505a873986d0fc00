"""A command of its name, which greets somebody, or says where the plugin lies."""

import argparse

from bossbot import App, Subcommand, hookimpl


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?")


async def show(app: App, args: argparse.Namespace) -> int:
    if args.name:
        print(f"Hello, {args.name}! {type(app).__name__}")
        return 7
    print(__file__)
    return 0


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand(__name__.rpartition(".")[2], "say hello", show, arguments)]
