"""``plugins``: list the plugins with their kind, origin, state and hooks."""

import argparse

from bossbot import App, Subcommand, hookimpl


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("plugins", "list the plugins, their state and hooks", show)]


async def show(app: App, args: argparse.Namespace) -> int:
    """Print a table; returns 1 if a broken plugin is off."""
    from rich.console import Console
    from rich.table import Table

    table = Table("plugin", "kind", "origin", "state", "hooks", box=None)
    for plugin in app.plugins.all.values():
        state = f"off: {plugin.off}" if plugin.off else "on"
        parts = f" ({', '.join(plugin.parts)})" if plugin.parts else ""
        hooks = ", ".join(plugin.hooks)
        table.add_row(plugin.stem, plugin.kind + parts, plugin.origin, state, hooks)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a line for each, for other programs
    console.print(table, markup=False)
    wanted_off = app.settings.disabled_plugins
    plugins = app.plugins.all.values()
    return int(any(p.off and p.stem not in wanted_off for p in plugins))
