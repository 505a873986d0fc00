"""The name of a process among those that share a queue."""

import secrets
import socket
from pathlib import Path

from bossbot_plugins._files import write_atomically


def own_name(data: Path) -> str:
    """A name for this process, the same as long as its data folder lives."""
    path = data / "worker"
    if not path.is_file():
        name = f"{socket.gethostname()}-{secrets.token_hex(3)}"
        write_atomically(path, name.encode())
    return path.read_text("utf-8")
