"""Helpers for files and folders, for several plugins."""

import contextlib
import errno
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TOO_DEEP_BYTES = 2**60  # what counts as endless


def size_of(folder: Path, too_deep_bytes: int = 0, shared: bool = False) -> int:
    """Bytes of all files below a folder, which come and go; follows no link. A folder
    whose path is too long to be looked at counts as ``too_deep_bytes``. With ``shared``,
    a file of several names counts in part for each."""
    total, left = 0, [str(folder)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        with contextlib.suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            names = max(status.st_nlink, 1) if shared else 1
                            total += status.st_size // names
        except OSError as error:
            total += too_deep_bytes * (error.errno == errno.ENAMETOOLONG)
    return total


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, as far as that works; follows no link.
    However deep it is: each folder inside is moved to the top before it is emptied."""
    with contextlib.suppress(OSError):
        with _opened(str(folder)) as top:
            left = ["."]
            while left:
                name = left.pop()
                with contextlib.suppress(OSError), _opened(name, top) as inside:
                    left += _empty(inside, top)
                with contextlib.suppress(OSError):  # "." goes last
                    os.rmdir(name, dir_fd=top)
        os.rmdir(folder)


def _empty(inside: int, top: int) -> Iterator[str]:
    """Remove the files in a folder, and move its folders to another one; yields how
    these are called there."""
    with os.scandir(inside) as entries:
        found = list(entries)
    for entry in found:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                name = uuid.uuid4().hex
                os.rename(entry.name, name, src_dir_fd=inside, dst_dir_fd=top)
                yield name
            else:
                os.unlink(entry.name, dir_fd=inside)


@contextlib.contextmanager
def _opened(name: str, above: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, FOLDER, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file whole, readable only by its owner; a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
