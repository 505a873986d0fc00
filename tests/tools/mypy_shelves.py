"""Lets mypy resolve ``from bossbot_plugins._name import ...``.

The loader makes one package of the plugins' folders, which mypy cannot follow. As a
plugin of mypy (see pyproject.toml), this file links the libraries of all shelves into a
folder that is on mypy's path.
"""

from pathlib import Path

from mypy.plugin import Plugin

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / ".mypy_cache" / "libraries" / "bossbot_plugins"


def plugin(version: str) -> type[Plugin]:
    """Called by mypy when it starts."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for link in PACKAGE.iterdir():
        link.unlink()
    for library in ROOT.glob("plugins/*/_[!_]*"):
        (PACKAGE / library.name).symlink_to(library)
    return Plugin
