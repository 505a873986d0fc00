"""Has a command that says which files modules are that a plugin has the name of."""

import argparse
import logging
import queue

import yt_dlp

import bossbot
from bossbot import App, Subcommand, hookimpl


async def show(app: App, args: argparse.Namespace) -> int:
    print(*(module.__file__ for module in (queue, yt_dlp, logging, bossbot)))
    return 0


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand(f"{__name__.rpartition('.')[2]}_shadow", "", show)]
