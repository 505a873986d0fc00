"""Landlock: the kernel leaves this process only the files that it is given.

Needs Linux 5.13 with Landlock switched on, and no privileges; newer kernels add walls
(``abi``). Lost rights never come back, neither to this process nor to any program that
it starts.
"""

import contextlib
import ctypes
import functools
import os
import stat
import sys
from collections.abc import Iterable

# linux/landlock.h and asm-generic/unistd.h; the numbers are the same on every machine.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (
    1 << bit for bit in range(6)
)
MAKE_DIR, MAKE_REG, MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
ALL_SINCE = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: IOCTL_DEV}  # by ABI
BIND_TCP = 1 << 0
SCOPES = 1 << 0 | 1 << 1  # abstract UNIX sockets, signals

READ = EXECUTE | READ_FILE | READ_DIR
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
# No sockets, pipes or devices: nothing that a download brings.
WRITE = (
    READ
    | WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SYM
    | REFER
    | TRUNCATE
)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


@functools.cache  # each one would have a class of its own
def libc() -> ctypes.CDLL:
    """The system's library of C, which remembers errors."""
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    """A system call; raises OSError."""
    result = int(libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@functools.cache
def abi() -> int:
    """The kernel's version of Landlock; 0 for none."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Take from this thread, and from what it starts, all files but those at and below
    some paths, TCP servers, and where the kernel can the signals to other processes
    and abstract sockets. Returns False, with nothing taken, where there is no Landlock.

    The process must have ``no_new_privs`` set. A path that is not there is passed over;
    one that is a link counts as what it leads to, unless it is writable.
    """
    if not (version := abi()):
        return False
    handled = sum(rights for since, rights in ALL_SINCE.items() if since <= version)
    attributes = _Ruleset(
        handled, BIND_TCP if version >= 4 else 0, SCOPES if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(
        CREATE_RULESET,
        ctypes.byref(attributes),
        ctypes.c_size_t(size),
        ctypes.c_uint32(0),
    )
    try:
        for rights, paths, how in (
            (READ & handled, readable, os.O_PATH),
            ((WRITE | IOCTL_DEV) & handled, writable, os.O_PATH | os.O_NOFOLLOW),
        ):
            for path in paths:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    _allow(ruleset, path, rights, how)
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int, how: int) -> None:
    try:
        descriptor = os.open(path, how | os.O_CLOEXEC)
    except PermissionError:  # then nobody here reads it anyway
        return
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISDIR(mode):
            rights &= FILE_RIGHTS
        if stat.S_ISCHR(mode):  # such as /dev/null
            rights |= WRITE_FILE
        else:
            rights &= ~IOCTL_DEV
        rule = _PathRule(rights, descriptor)
        _call(
            ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(1),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(descriptor)


def without(paths: Iterable[str], private: Iterable[str]) -> set[str]:
    """Some folders and files, as real paths, so that nothing below them is private: a
    folder with something private somewhere inside gives way to what else is in it."""
    kept: set[str] = set()
    hidden = {os.path.realpath(path) for path in private}

    def add(path: str) -> None:
        inside = f"{path.rstrip(os.sep)}{os.sep}"
        if path in hidden:
            return
        if not any(one.startswith(inside) for one in hidden):
            kept.add(path)
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(path):
                below = os.path.join(path, name)
                if not os.path.islink(below):  # where it leads has its own right
                    add(below)

    for path in paths:
        add(path)
    return kept
