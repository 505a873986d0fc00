"""What several parts want to know about files."""

import contextlib
import os
from pathlib import Path


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder, which come and go; follows no link."""
    total, left = 0, [str(folder)]
    while left:
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total
