"""``plugins``: list the plugins with their state and hooks."""

import argparse

from rich.console import Console
from rich.table import Table

from bossbot import Pipeline, Subcommand, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("plugins", "list the plugins, their state and hooks", show)]


async def show(pipeline: Pipeline, args: argparse.Namespace) -> int:
    """Print a table; returns 1 if a plugin is off by its own fault."""
    table = Table("plugin", "state", "hooks", box=None)
    for plugin in pipeline.plugins.all.values():
        state = f"off: {plugin.off}" if plugin.off else "on"
        table.add_row(plugin.stem, state, ", ".join(plugin.hooks))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a line for each, for other programs
    console.print(table, markup=False)
    wanted_off = pipeline.settings.disabled_plugins
    plugins = pipeline.plugins.all.values()
    return int(any(p.off and p.stem not in wanted_off for p in plugins))
