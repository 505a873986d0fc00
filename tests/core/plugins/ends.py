"""Says that it begins, and ends in the way that is set."""

import asyncio
from typing import Any

from bossbot import PluginConfig, hookimpl


class Config(PluginConfig):
    how: str = "never"


@hookimpl
async def run(app: Any, config: Config) -> None:
    app.heard.put_nowait("begins")
    while not app.let_go.is_set():  # until the test has seen enough
        try:
            await app.let_go.wait()
        except asyncio.CancelledError:
            if config.how == "with a fault":
                raise ZeroDivisionError from None
            if config.how == "with a part":
                await app.facts.set("a", "kept")
                app.heard.put_nowait(await app.facts.get("a"))
                raise
            app.heard.put_nowait("no")
