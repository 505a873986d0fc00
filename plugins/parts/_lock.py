"""The lock of the data folder: one process owns what is in it."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from bossbot import StartError


def lock_data(data: Path) -> IO[bytes]:
    """Own a data folder until the file that is returned is closed.

    Raises:
        StartError: another process owns it, or the lock's file cannot be used.
    """
    path = data / ".locks" / "bossbot.lock"
    file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = b""
        if file:
            with contextlib.closing(file), contextlib.suppress(OSError):
                file.seek(0)
                other = file.read(100)
        if isinstance(error, BlockingIOError):
            name = other.decode(errors="replace").strip() or "?"
            raise StartError(
                f"Another Boss-Bot (process {name}) uses {data}. "
                "Stop it first, or set another data_dir."
            ) from None
        # A file of another user's, or a network share.
        raise StartError(
            f"{path}: {error.strerror}. The bot must be able to write and lock "
            "this file."
        ) from error
    with contextlib.suppress(OSError):  # a full disk shows soon enough
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    return file
