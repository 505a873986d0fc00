"""Says its name, and does what is set: see _ways.py."""

from typing import Any

from bossbot_plugins._ways import Config, in_loop

from bossbot import hookimpl


@hookimpl
async def run(app: Any, config: Config) -> None:
    app.heard.put_nowait(__name__.rpartition(".")[2])
    await in_loop(config)
