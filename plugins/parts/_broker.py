"""The only way out of a child that may not connect by itself.

The child asks the bot, over a socket between the two, which judges the address, dials,
and hands the socket in. It looks names up, too, and changes the modes of files that the
child can prove to be its own. One question at a time.
"""

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import select
import socket
import stat
import sys
import threading
from collections.abc import Callable
from typing import Any

from bossbot import in_thread

MAX_QUESTION_BYTES = 2048
MAX_QUESTIONS = 20_000  # of one child: names and connections
MAX_ANSWERS = 32  # addresses of a name
LOOKUP_S = 30.0
Judge = Callable[[str, int], bool]  # whether an address and port may be dialled


# The bot's side


class Broker:
    """Answers one child until it is closed."""

    def __init__(self, line: socket.socket, judge: Judge) -> None:
        self._line, self.judge = line, judge
        self._loop = asyncio.get_running_loop()
        self._lookup: asyncio.Task[None] | None = None
        self._asked = 0
        line.setblocking(False)
        self._loop.add_reader(line, self._read)

    def close(self) -> None:
        if self._line.fileno() >= 0:
            self._loop.remove_reader(self._line)
            self._line.close()
        if self._lookup:
            self._lookup.cancel()

    def _read(self) -> None:
        descriptors: list[int] = []
        try:
            packet, descriptors, *_ = socket.recv_fds(self._line, MAX_QUESTION_BYTES, 1)
            if not packet:
                raise ConnectionResetError
            self._asked += 1
            if self._asked > MAX_QUESTIONS:
                raise PermissionError("it asks without end")
            match json.loads(packet):
                case ["dial", str(host), int(port)]:
                    self._dial(host, port)
                case ["look up", *arguments]:
                    self._loop.remove_reader(self._line)  # it waits its turn
                    self._lookup = self._loop.create_task(self._look_up(arguments))
                case ["chmod", int(mode)] if descriptors:
                    self._chmod(descriptors[0], mode)
                case _:
                    raise ValueError(packet)
        except BlockingIOError:  # or it does not read its answers
            pass
        except Exception:  # whatever it sends, only its broker closes
            self.close()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _answer(self, answer: Any, *descriptors: int) -> None:
        packet = json.dumps(answer).encode()
        socket.send_fds(self._line, [packet], descriptors)

    def _dial(self, host: str, port: int) -> None:
        """Begin to connect, without waiting; the child watches the socket."""
        if not self.judge(host, port):
            self._answer(errno.EACCES)
            return
        sixth = ipaddress.ip_address(host).version == 6
        family = socket.AF_INET6 if sixth else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as dialled:
            dialled.setblocking(False)
            self._answer(dialled.connect_ex((host, port)), dialled.fileno())

    async def _look_up(self, arguments: list[Any]) -> None:
        host, port, family, kind, protocol, flags = arguments
        try:
            async with asyncio.timeout(LOOKUP_S):
                found = await in_thread(
                    lambda: socket.getaddrinfo(
                        host, port, family, kind, protocol, flags
                    )
                )
            answer: Any = found[:MAX_ANSWERS]
        except socket.gaierror as error:
            answer = list(error.args)
        except (OSError, ValueError, TypeError):
            answer = [socket.EAI_AGAIN, "Temporary failure in name resolution"]
        with contextlib.suppress(OSError):
            if self._line.fileno() >= 0:
                self._answer(answer)
                self._loop.add_reader(self._line, self._read)

    def _chmod(self, descriptor: int, mode: int) -> None:
        """Change a file that the child has open to be written: so it is its own."""
        written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        own = written and stat.S_ISREG(os.fstat(descriptor).st_mode)
        if own:
            os.fchmod(descriptor, mode & 0o777)
        self._answer(0 if own else errno.EPERM)


# The child's side


def use_broker(line: socket.socket) -> None:
    """Let Python's own sockets in this process go through the broker: ``connect``,
    names, and ``os.chmod``."""
    lock = threading.Lock()
    real_lookup = socket.getaddrinfo

    def ask(question: Any, *descriptors: int) -> tuple[Any, list[int]]:
        packet = json.dumps(question).encode()
        if len(packet) > MAX_QUESTION_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with lock:
            socket.send_fds(line, [packet], descriptors)
            answer, found, *_ = socket.recv_fds(line, 65536, 1)
        if not answer:
            raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))
        return json.loads(answer), found

    def look_up(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:  # fmt: skip
        sys.audit("socket.getaddrinfo", host, port, family, type, proto)
        with contextlib.suppress(OSError):  # a literal address needs no network
            numeric = flags | socket.AI_NUMERICHOST
            return real_lookup(host, port, family, type, proto, numeric)
        if isinstance(host, str):
            host = host.encode("idna")
        host = host.decode() if isinstance(host, (bytes, bytearray)) else host
        port = port.decode() if isinstance(port, (bytes, bytearray)) else port
        question = ["look up", host, port, int(family), int(type), proto, int(flags)]
        answer, _ = ask(question)
        if answer and not isinstance(answer[0], list):
            raise socket.gaierror(*answer)
        return [
            (_family(f), socket.SocketKind(k), p, name, tuple(address))
            for f, k, p, name, address in answer
        ]

    def first(name: str) -> str:
        return str(look_up(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])

    def all_of(name: str) -> tuple[str, list[str], list[str]]:
        found = look_up(name, None, socket.AF_INET, socket.SOCK_STREAM)
        return name, [], [str(address[0]) for *_, address in found]

    def dial(self: socket.socket, address: Any) -> int:
        """The number of the error, as of ``connect_ex``."""
        sys.audit("socket.connect", self, address)
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return errno.EACCES
        host, port = str(address[0]), int(address[1])
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            host = look_up(host, port, self.family, self.type)[0][4][0]
        error, found = ask(["dial", host, port])
        if not found:
            return int(error)
        timeout = self.gettimeout()
        options = _options(self)
        os.dup2(found[0], self.fileno(), inheritable=False)
        os.close(found[0])
        self.settimeout(timeout)
        for option, value in options:
            with contextlib.suppress(OSError):
                self.setsockopt(*option, value)
        if error != errno.EINPROGRESS or timeout == 0:
            return int(error)
        poll = select.poll()
        poll.register(self, select.POLLOUT)
        if not poll.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("timed out")
        return self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def connect(self: socket.socket, address: Any) -> None:
        if error := dial(self, address):
            raise OSError(error, os.strerror(error))

    def connect_ex(self: socket.socket, address: Any) -> int:
        try:
            return dial(self, address)
        except TimeoutError:
            return errno.EAGAIN

    def chmod(
        path: Any, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        if isinstance(path, int):
            fchmod(path, mode)
            return
        flags = os.O_CLOEXEC | (0 if follow_symlinks else os.O_NOFOLLOW)
        try:
            descriptor = os.open(path, os.O_RDWR | flags, dir_fd=dir_fd)
        except IsADirectoryError:  # which stays its owner's
            return
        try:
            fchmod(descriptor, mode)
        finally:
            os.close(descriptor)

    def fchmod(descriptor: int, mode: int) -> None:
        error, _ = ask(["chmod", mode], descriptor)
        if error:
            raise OSError(error, os.strerror(error))

    socket.getaddrinfo = look_up
    socket.gethostbyname, socket.gethostbyname_ex = first, all_of
    socket.socket.connect = connect  # type: ignore[method-assign,assignment]
    socket.socket.connect_ex = connect_ex  # type: ignore[method-assign,assignment]
    os.chmod, os.fchmod = chmod, fchmod  # type: ignore[assignment]


OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
]


def _options(old: socket.socket) -> list[tuple[tuple[int, int], int]]:
    """The options of a socket that its successor takes over."""
    return [(option, value) for option in OPTIONS if (value := old.getsockopt(*option))]


def _family(number: int) -> int:
    with contextlib.suppress(ValueError):
        return socket.AddressFamily(number)
    return number
