"""Says what it has when it begins: its settings, and two of the parts."""

from typing import Any

from bossbot import Job, PluginConfig, Settings, hookimpl


class Config(PluginConfig):
    word: str = "hello"


@hookimpl
async def run(settings: Settings, app: Any, config: Config) -> None:
    app.heard.put_nowait(f"{config.word} {settings.max_items}")
    await app.facts.set("a", "1")
    job = Job(id="aa", url="https://a.example/", request_key="k")
    app.heard.put_nowait(f"{await app.facts.get('a')} {await app.queue.add(job)}")
