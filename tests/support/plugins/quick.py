"""A bot that waits for less long than its owner may set."""

from typing import Any

from bossbot import App, hookimpl


@hookimpl
async def run(app: App) -> None:
    progress: Any = app.plugins.all["progress"]
    progress.config = progress.config.model_copy(update={"edit_interval_s": 0.1})
    queue: Any = app.queue
    queue.tick_s = 0.1
    worker: Any = app.worker
    courier: Any = app.courier
    worker.insist_s = courier.write_wait_s = 0.5
