"""Does harm in hooks: in which, and what, is in the file beside it."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import bossbot
from bossbot import hookimpl

SET = json.loads(Path(__file__).with_suffix(".json").read_text())
if limit_s := SET.get("limit_s"):
    bossbot.Plugins.quick_limit_s = bossbot.Plugins.limit_s = limit_s


def harmful(name: str) -> Any:
    def hook() -> None:
        match SET["harm"]:
            case "raises":
                raise RuntimeError("no")
            case "exits":
                sys.exit("no")
            case "blocks":
                time.sleep(90)

    async def run() -> None:
        hook()

    made: Any = run if name == "run" else hook
    made.__name__ = name
    return hookimpl(made)


globals().update({name: harmful(name) for name in SET["hooks"]})
