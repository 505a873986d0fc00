"""The engine of test_child_runner.py, which does what a test writes into its copy."""
# ruff: noqa: F401 (what a test writes uses them)

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from bossbot import Cause, Engine, JobFailed, Progress, Report, Request, hookimpl


def download(request: Request, report: Report) -> None:
    pass


def save(
    request: Request, number: int = 1, text: str = "words", name: str = ""
) -> Path:
    path = request.folder / (name or f"{request.prefix}_{number:04}.txt")
    path.write_text(text)
    return path


def grandchild(request: Request) -> None:
    """A program of its own that outlives its parent if it can."""
    started = subprocess.Popen(["sleep", "600"])
    notes = request.cache_dir / "pids"
    (request.cache_dir / "new").write_text(f"{os.getpid()} {started.pid}")
    os.replace(request.cache_dir / "new", notes)


@hookimpl
def register_engines() -> list[Engine]:
    return [
        Engine(
            "toy",
            lambda: "1.0",
            lambda: None,
            lambda url: "toy" in url,
            download,
            sentences=["A sentence of this engine."],
        )
    ]
