"""An engine for links that no other knows."""

from bossbot_plugins._toy_engine import engine

from bossbot import Engine, hookimpl


@hookimpl
def register_engines() -> list[Engine]:
    return [engine("generic", generic=True)]
