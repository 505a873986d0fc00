"""An engine that attacks the bot, as a test writes into its copy."""
# ruff: noqa: F401 (what a test writes uses them)

import contextlib
import ctypes
import errno
import json
import mmap
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bossbot import Engine, Report, Request, hookimpl

libc = ctypes.CDLL(None, use_errno=True)
L = ctypes.c_long


def call(number: int, *arguments: Any) -> int:
    """A system call past Python and its audit hook: the result, or minus the error."""
    result = libc.syscall(L(number), *arguments)
    return -ctypes.get_errno() if result < 0 else result


def failed(work: Callable[[], Any]) -> str | None:
    """The error that something ends with; None if it works."""
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return None


def address(host: str, port: int) -> bytes:
    return struct.pack("!HH4s8x", socket.htons(2), port, socket.inet_aton(host))


def supports(url: str) -> bool:
    return "toy" in url


def download(request: Request, report: Report) -> None:
    def tell(value: Any) -> None:
        report.info(text=json.dumps(value))

    tell(None)


@hookimpl
def register_engines() -> list[Engine]:
    return [Engine("toy", lambda: "1.0", lambda: None, supports, download)]
