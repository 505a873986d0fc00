"""Runs the program beside it for each job."""

import sys
from pathlib import Path

from bossbot import App, Bench, hookimpl


@hookimpl
async def process_files(app: App, bench: Bench) -> None:
    home = bench.path("x").parent.with_name("home")
    program = Path(__file__).with_name("program").read_text()
    await app.runner.run([sys.executable, "-c", program], home)
