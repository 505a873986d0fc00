"""The plugins' folders as the package that the loader makes of them, for imports."""

from bossbot import HERE, plugin_folders

__path__ = [str(folder) for folder in plugin_folders(HERE / "plugins")]
