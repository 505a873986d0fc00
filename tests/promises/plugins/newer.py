"""Makes a bot one of a later version: its jobs have more fields, its script differs."""

import hashlib
import json
from typing import Any

import bossbot
from bossbot import App, hookimpl

bossbot.__version__ = "99.0"


@hookimpl
async def run(app: App) -> None:
    from bossbot_plugins import redis_queue

    def newer(row: dict[str, Any]) -> dict[str, Any]:
        posts = [
            {**post, "newer": [1]} for post in json.loads(row.get("posts") or "[]")
        ]
        return {**row, "newer": "x", **({"posts": json.dumps(posts)} if posts else {})}

    whole, fields = redis_queue.whole, redis_queue.fields
    redis_queue.whole = lambda job: newer(whole(job))
    redis_queue.fields = lambda *about: json.dumps(newer(json.loads(fields(*about))))
    queue: Any = app.queue
    texts = [f"{text}\n-- newer" for text in queue.redis._scripts.values()]
    shas = [hashlib.sha1(text.encode()).hexdigest() for text in texts]
    queue.redis._scripts = dict(zip(shas, texts, strict=True))
