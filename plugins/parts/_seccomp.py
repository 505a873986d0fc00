"""Seccomp: the kernel lets this process make only harmless system calls.

Needs Linux with seccomp filters, and no privileges: containers and distributions that
refuse namespaces have it. Without a call that connects, binds or sends to an address,
the network is what is handed in: see ``_broker.py``. Without one that leaves a process
group, everything that was started can be killed.

The filter is a list of refused calls. Landlock guards the files.
"""

import ctypes
import errno
import functools
import os
import platform
import struct
import sys

from bossbot_plugins._landlock import libc

# linux/seccomp.h, linux/filter.h, linux/audit.h
SET_MODE_FILTER, GET_ACTION_AVAIL, TSYNC = 1, 2, 1
KILL, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
X32 = 0x40000000  # a second table of calls on x86-64
MSG_FASTOPEN = 0x20000000  # connects, and sends
NEW_NAMESPACES = 0x7E020000  # of clone
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20

# The number of each call: on x86-64, and on machines with the generic table.
# fmt: off
CALLS = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203),
    "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "setsid": (112, 157),
    "setpgid": (109, 154), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "clone": (56, 220), "clone3": (435, 435),
    "unshare": (272, 97), "setns": (308, 268), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "kcmp": (312, 272), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "prlimit64": (302, 261), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122), "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "acct": (163, 89), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "quotactl": (179, 60), "syslog": (103, 116),
    "vhangup": (153, 58), "fanotify_init": (300, 262),
    "inotify_add_watch": (254, 27), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "semget": (64, 190),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "chmod": (90, None),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469), "fcntl": (72, 25), "ioctl": (16, 29),
    "mmap": (9, 222), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "open_tree_attr": (467, 467), "mkdir": (83, None), "mkdirat": (258, 34),
    "umask": (95, 166),
}
# fmt: on
# What Landlock does not see; programs do not mind if it has no effect.
PRETENDED = {
    *("setsid", "setpgid", "chmod", "fchmod", "fchmodat", "fchmodat2"),
    *("utime", "utimes", "futimesat", "utimensat"),
}
# Programs that try one of these do without it.
UNKNOWN = {
    *("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("memfd_create", "memfd_secret"),  # memory that is counted nowhere
}
XATTRS = {name for name in CALLS if "xattr" in name}
OF_OTHERS = {  # calls on another process, with the argument that names it
    **dict.fromkeys(("prlimit64", "sched_setaffinity", "sched_setparam"), 0),
    **dict.fromkeys(("sched_setscheduler", "sched_setattr"), 0),
    **dict.fromkeys(("setpriority", "ioprio_set"), 1),
}
# Of these, the first argument must say that the other one names a process, no user.
OF_PROCESSES = {"setpriority": 0, "ioprio_set": 1}
SIGNALS = {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}

_Step = tuple[int, int, int, int]  # code, jump if true, jump if false, value
DONE: list[_Step] = [(RETURN, 0, 0, ALLOW)]


def _refuse(number: int) -> list[_Step]:
    return [(RETURN, 0, 0, ERRNO | number)]


def _load(argument: int, high: bool = False) -> list[_Step]:
    offset = 16 + 8 * argument + 4 * (high == (sys.byteorder == "little"))
    return [(LOAD, 0, 0, offset)]


def _only(values: tuple[int, ...], number: int) -> list[_Step]:
    """Refuse what is loaded, unless it is one of these values."""
    count = len(values)
    jumps = [(EQUAL, count - n, 0, v) for n, v in enumerate(values)]
    return [*jumps, *_refuse(number)]


def _unless(values: tuple[int, ...], number: int) -> list[_Step]:
    """Refuse what is loaded if it is one of these values."""
    steps: list[_Step] = []
    for value in values:
        steps += [(EQUAL, 0, 1, value & 0xFFFFFFFF), *_refuse(number)]
    return steps


def _no_bit(bits: int, number: int) -> list[_Step]:
    return [(ANY_BIT, 0, 1, bits), *_refuse(number)]


def _rule(name: str, protected: tuple[int, ...]) -> list[_Step]:
    """The filter's code for a call."""
    denied, kind = errno.EACCES, (AND, 0, 0, 0xF)
    match name:
        case "socket":  # streams only: they are of no use until they are connected
            family = _only((1, 2, 10), errno.EAFNOSUPPORT)
            stream = [*_load(1), kind, *_only((1,), denied)]
            return [*_load(0), *family, *stream, *_load(2), *_only((0, 6), denied)]
        case "socketpair":  # others can be led to a named socket
            return [*_load(1), kind, *_only((1, 5), denied)]
        case "sendto":
            to = [*_load(4), *_only((0,), denied), *_load(4, True)]
            flags = [*_load(3), *_no_bit(MSG_FASTOPEN, denied)]
            return [*to, *_only((0,), denied), *flags]
        case "sendmsg":
            return [*_load(2), *_no_bit(MSG_FASTOPEN, denied)]
        case "sendmmsg":
            return [*_load(3), *_no_bit(MSG_FASTOPEN, denied)]
        case "connect" | "bind" | "listen":
            return _refuse(denied)
        case "clone":
            return [*_load(0), *_no_bit(NEW_NAMESPACES, errno.EPERM)]
        case "fcntl":  # F_SETOWN, F_SETOWN_EX: who gets signals; F_SETLEASE: who waits
            return [*_load(1), *_unless((8, 15, 1024), errno.EPERM)]
        case "ioctl":  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
            ways = (0x8901, 0x8902, 0x5412, 0x541C)
            return [*_load(1), *_unless(ways, errno.EPERM)]
        case "mmap":  # memory that is shared and no file's is counted nowhere, either
            shared = (AND, 0, 0, MAP_SHARED | MAP_ANONYMOUS)
            both = _unless((MAP_SHARED | MAP_ANONYMOUS,), errno.EPERM)
            return [*_load(3), shared, *both]
        case "mkdir" | "mkdirat":  # so that the bot can remove its contents
            mode = _load(1 if name == "mkdir" else 2)
            return [*mode, (AND, 0, 0, 0o700), *_only((0o700,), errno.EPERM)]
        case "umask":
            return [*_load(0), *_no_bit(0o700, errno.EPERM)]
        case _ if name in OF_PROCESSES:
            process = [*_load(0), *_only((OF_PROCESSES[name],), errno.EPERM)]
            return [*process, *_load(OF_OTHERS[name]), *_only((0,), errno.EPERM)]
        case _ if name in OF_OTHERS:
            return [*_load(OF_OTHERS[name]), *_only((0,), errno.EPERM)]
        case _ if name in SIGNALS:
            rule = [*_load(0), *_unless((*protected, -1), errno.EPERM)]
            return rule + _unless(tuple(-pid for pid in protected), errno.EPERM)
        case _ if name in PRETENDED:
            return _refuse(0)
        case _ if name in UNKNOWN:
            return _refuse(errno.ENOSYS)
        case _ if name in XATTRS:
            return _refuse(errno.ENOTSUP)
    return _refuse(errno.EPERM)


def _machine() -> tuple[int, int] | None:
    """The kernel's number for this machine, and its column in CALLS."""
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        return None
    machines = {"x86_64": (62, 0), "aarch64": (183, 1), "riscv64": (243, 1)}
    found = machines.get(platform.machine())
    return found and (0xC0000000 | found[0], found[1])


def _program(machine: tuple[int, int], protected: tuple[int, ...]) -> list[_Step]:
    kernel, column = machine
    steps: list[_Step] = [
        *((LOAD, 0, 0, 4), (EQUAL, 1, 0, kernel), (RETURN, 0, 0, KILL)),
        (LOAD, 0, 0, 0),
    ]
    if column == 0:
        steps += [(AT_LEAST, 0, 1, X32), *_refuse(errno.ENOSYS)]
    for name, numbers in CALLS.items():
        number = numbers[column]
        if number is not None:
            rule = [*_rule(name, protected), *DONE]
            steps += [(EQUAL, 0, len(rule), number), *rule]
    return steps + DONE


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def _syscall(operation: int, flags: int, argument: object) -> int:
    number = {0: 317, 1: 277}[(_machine() or (0, 0))[1]]
    return int(
        libc().syscall(
            ctypes.c_long(number),
            ctypes.c_uint(operation),
            ctypes.c_uint(flags),
            argument,
        )
    )


def available() -> bool:
    """Whether this kernel takes filters, and this machine's calls are known here."""
    if not _machine():
        return False
    action = ctypes.c_uint32(ERRNO)
    return _syscall(GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


@functools.cache
def prepare(protected: tuple[int, ...]) -> bytes:
    """The filter; ``protected`` are processes that get no signal."""
    machine = _machine()
    assert machine
    steps = _program(machine, protected)
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def restrict(prepared: bytes) -> None:
    """Refuse the calls from now on, in all threads and in what they start; raises
    OSError. The process must have ``no_new_privs`` set."""
    wanted = _Filter(len(prepared) // 8, prepared)
    if _syscall(SET_MODE_FILTER, TSYNC, ctypes.byref(wanted)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
