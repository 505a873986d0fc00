"""Does harm in hooks: in which, and what, is in the file beside it."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bossbot
from bossbot import hookimpl

SET = json.loads(Path(__file__).with_suffix(".json").read_text())
if limit_s := SET.get("limit_s"):
    bossbot.Plugins.quick_limit_s = bossbot.Plugins.limit_s = limit_s


def harmful(name: str) -> Any:
    def hook() -> Any:
        match SET["harm"]:
            case "raises":
                raise RuntimeError("no")
            case "exits":
                sys.exit("no")
            case "exits later":
                return {SET["part"]: lambda app: sys.exit("no")}
            case "blocks":
                print("blocks", flush=True)
                time.sleep(90)
            case "goes on":
                threading.Thread(target=time.sleep, args=[999]).start()
            case "mutes":
                sys.stderr = None
                print("mute", flush=True)

    async def in_loop() -> None:
        hook()

    made: Any = in_loop if name == "run" or SET.get("in_loop") else hook
    made.__name__ = name
    return hookimpl(made)


globals().update({name: harmful(name) for name in SET["hooks"]})
