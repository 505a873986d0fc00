"""The walls around a child that the kernel provides: lists and raises them.

A child may be taken over by what it downloads. The audit hook of ``_child.py`` is then
lost; these are not. Each one that the kernel lacks is left out.
"""

import contextlib
import ctypes
import errno
import functools
import os
import resource
import select
import ssl
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from bossbot_plugins import _landlock, _seccomp
from bossbot_plugins._landlock import without

# linux/prctl.h, linux/capability.h
READ_BOUND, SYS_ADMIN = 23, 21
SET_DUMPABLE, DROP_BOUND, SET_NO_NEW_PRIVS, AMBIENT, CLEAR_AMBIENT = 4, 24, 38, 47, 4
CAPABILITY_VERSION = 0x20080522
DAC_OVERRIDE = 1  # root needs it to read other users' files; Landlock still applies
MAX_FILES = 1024  # that a process has open
MORE_TASKS = 1024  # processes and threads, on top of what runs when a child starts

PROGRAMS = """
    /bin /sbin /lib /lib32 /lib64 /libx32 /usr/bin /usr/sbin /usr/lib /usr/lib32
    /usr/lib64 /usr/libx32 /usr/libexec /usr/share /usr/local/bin /usr/local/lib
    /usr/local/lib64 /usr/local/libexec /usr/local/share /nix/store /gnu/store
    """
FILES = """
    /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/ld.so.preload
    /etc/ssl/certs /etc/ssl/cert.pem /etc/ssl/openssl.cnf /etc/ca-certificates
    /etc/pki/tls/certs /etc/pki/tls/cert.pem /etc/pki/tls/openssl.cnf
    /etc/pki/ca-trust/extracted /etc/crypto-policies /etc/resolv.conf /etc/hosts
    /etc/nsswitch.conf /etc/host.conf /etc/gai.conf /etc/services /etc/protocols
    /etc/localtime /etc/timezone /etc/mime.types /etc/fonts /var/cache/fontconfig
    /dev/null /dev/full /dev/random /dev/urandom
    /proc/cpuinfo /proc/meminfo /proc/stat /proc/version /proc/uptime
    /proc/filesystems /proc/sys/vm/overcommit_memory /proc/sys/kernel/osrelease
    /proc/sys/vm/max_map_count /sys/devices/system/cpu /sys/fs/cgroup
    /sys/kernel/mm/transparent_hugepage
    """
# Of a folder of Python, which may be the checkout itself.
OF_PYTHON = "bin lib lib64 libexec share ssl Frameworks pyvenv.cfg"
# Too much to be given because a path in them is wanted.
WIDE = """
    / /bin /boot /dev /etc /home /media /mnt /opt /proc /root /run /srv /sys /tmp /usr
    /usr/local /var /var/lib /var/tmp /Users
    """


def standing() -> dict[str, bool]:
    """The walls by what they keep in, and whether this machine has them."""
    abi = _landlock.abi()
    return {
        "files (Landlock)": abi > 0,
        "signals (Landlock)": abi >= 6,
        "network and processes (seccomp)": _seccomp.available(),
    }


def _prctl(*arguments: int) -> int:
    values = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:5]]
    return int(_landlock.libc().prctl(*values))


def hide() -> None:
    """Close the memory and the environment of this process to others of the same user,
    and keep it out of core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _prctl(SET_DUMPABLE, 0)


@contextlib.contextmanager
def looking_at_itself() -> Iterator[None]:
    """While it lasts, a hidden process may open what /proc says of its own memory, as
    others of the same user may: so only for that moment."""
    _prctl(SET_DUMPABLE, 1)
    try:
        yield
    finally:
        _prctl(SET_DUMPABLE, 0)


def raise_open_files() -> None:
    """Let this process have more files open than a child: a user's processes share the
    count of those that are handed to others, by which one child could stop them all."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):  # macOS has a limit that it does not name
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def all_tasks() -> int:
    """How many processes and threads this machine runs; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/loadavg", "rb", buffering=0) as file:  # in few steps
            words = file.read(100).split()
        return int(words[3].partition(b"/")[2])
    return 0


def may_watch() -> bool:
    """Whether this user may watch one more socket, on Linux: its processes share the
    count of what epoll watches, by which one child could stop them all."""
    try:
        with select.epoll() as watching, select.epoll() as watched:
            watching.register(watched)
    except OSError as error:
        return error.errno != errno.ENOSPC
    return True


def limit(cpu_s: float) -> None:
    """Limit the resources of this process, and of each that it starts."""

    def lower(kind: int, soft: int, hard: int) -> None:
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))

    lower(resource.RLIMIT_NOFILE, MAX_FILES, MAX_FILES)
    seconds = int(min(cpu_s, 2**31))
    lower(resource.RLIMIT_CPU, seconds + 1, seconds + 6)
    # It counts all that this user runs; more than that runs on the machine.
    if tasks := all_tasks():
        lower(resource.RLIMIT_NPROC, tasks + MORE_TASKS, tasks + MORE_TASKS)


def told() -> frozenset[str]:
    """Where this process was told to look for modules, certificates and the time zone;
    a plugin may tell it more."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "TZ")
    named = (os.environ.get(name, "").lstrip(":") for name in names)
    return frozenset({*sys.path, *_real(_absolute(named))})


def readable(
    places_told: Iterable[str], programs: Iterable[str], private: Iterable[str]
) -> set[str]:
    """The paths that Python, the engines and the programs need, and nothing of what is
    private; for ``places_told`` see ``told``."""
    paths = {*places_told, *_absolute(filter(None, ssl.get_default_verify_paths()))}
    for program in programs:
        real = Path(program)
        paths.add(program)
        if real.parent.name == "bin":  # with its libraries beside it
            paths |= {str(real.parent), str(real.parent.with_name("lib"))}
    given = without(places() | (_real(paths) - _wide()), private)
    outermost = {path for path in given if given.isdisjoint(_above(path))}
    return outermost | {"/proc/self"}  # of the process that is kept to these paths


def _above(path: str) -> Iterator[str]:
    """The folders around a path, but for the outermost one."""
    while (path := os.path.dirname(path)) != os.path.dirname(path):
        yield path


def sources(modules: Iterable[ModuleType], private: Iterable[str]) -> set[str]:
    """Where modules were imported from, without what is private."""
    paths = {Path(module.__file__) for module in modules if module.__file__}
    names = {str(p.parent if p.name == "__init__.py" else p) for p in paths}
    return without(_real(names) - _wide(), private)


def _real(paths: Iterable[str]) -> set[str]:
    return {os.path.realpath(path) for path in paths if path}


@functools.cache
def _wide() -> set[str]:
    return _real(WIDE.split())


@functools.cache
def places() -> frozenset[str]:
    """Where Python and the system keep what programs need; real paths."""
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    paths = {os.path.join(p, name) for p in prefixes for name in OF_PYTHON.split()}
    paths |= {*sysconfig.get_paths().values(), *_libraries()}
    # /bin and its like may be folders of their own.
    system = [*PROGRAMS.split(), *FILES.split()]
    given = (_real(paths) - _wide()) | _real(system)
    return frozenset(path for path in given if os.path.exists(path))


def _absolute(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path.startswith(os.sep)]


def _libraries() -> Iterable[str]:
    """The folders in which the system's loader looks for libraries."""
    for path in Path("/etc/ld.so.conf.d").glob("*.conf"):
        with contextlib.suppress(OSError, ValueError):
            lines = map(str.strip, path.read_text().splitlines())
            yield from (line for line in lines if line.startswith(os.sep))


def bound_privileges() -> None:
    """Let no program that is started gain a right of root but that one."""
    if sys.platform != "linux" or _prctl(READ_BOUND, SYS_ADMIN) != 1:
        return  # the fork server has done it
    for capability in range(64):
        if capability != DAC_OVERRIDE and _prctl(DROP_BOUND, capability):
            break  # it was the last one, or this is not root


def drop_privileges() -> None:
    """Take from this process, and what it starts, every right of root but to read what
    belongs to others, and any way to gain one."""
    if sys.platform != "linux":
        return
    bound_privileges()
    _prctl(AMBIENT, CLEAR_AMBIENT)
    kept = 1 << DAC_OVERRIDE
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = _landlock.libc()
    libc.capget(header, data)
    for index in range(6):
        data[index] &= kept if index < 2 else 0  # effective and permitted, the low half
    libc.capset(header, data)
    if _prctl(SET_NO_NEW_PRIVS, 1):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def prepare(protected: tuple[int, ...]) -> None:
    """Do beforehand what is the same for all children of this process."""
    bound_privileges()
    if _seccomp.available():
        _seccomp.prepare(protected)


def limit_calls(protected: tuple[int, ...]) -> bool:
    """Raise the walls around calls: the rights of root, the network, the ``protected``
    processes. Returns whether sockets must come from the broker from now on."""
    drop_privileges()
    with_filter = _seccomp.available()
    if with_filter:
        _seccomp.restrict(_seccomp.prepare(protected))
    return with_filter


def limit_files(may_read: Iterable[str], may_write: Sequence[str]) -> None:
    """Raise the wall around files, after ``limit_calls``. For one thread: the others
    must come later, as they would stay outside; raises RuntimeError if one is there."""
    if _landlock.abi():
        _be_alone()
    _landlock.restrict(may_read, may_write)


def _be_alone() -> None:
    for _ in range(100):  # one that has ended takes a moment to go
        if os.stat("/proc/self/task").st_nlink <= 3:
            return
        time.sleep(0.01)
    raise RuntimeError("an engine's import has left a thread running")


def loaded(package: ModuleType) -> list[ModuleType]:
    """The modules in a package that have been imported. To ask sys.modules for them
    would copy the pages of all names in it."""
    return [one for one in vars(package).values() if isinstance(one, ModuleType)]
