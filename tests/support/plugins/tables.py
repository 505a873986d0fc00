"""Registers the scripts in the file beside it."""

import json
from pathlib import Path

from bossbot import hookimpl


@hookimpl
def register_tables() -> list[str]:
    return json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
