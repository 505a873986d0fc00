"""The plugins folder as the package that the loader makes of it, for tests' imports."""

from bossbot import HERE

__path__ = [str(HERE / "plugins")]
