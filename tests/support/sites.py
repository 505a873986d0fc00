"""A loopback stand-in for the web: a plain HTTP server and an HTTPS proxy in one.

Tests register answers by path ("/a.jpg" is the server's own) or by address
("https://x.com/home" is asked through the proxy, which signs a certificate for each
host with a throw-away authority). What nobody registered is refused and remembered:

    with Sites() as sites:
        sites.serve("/a.jpg", Path("a.jpg"))
        sites.serve("https://api.x.com/1.1/*", {"guest_token": "1"})
        subprocess.run(["gallery-dl", ...], env={**os.environ, **sites.environment})
        assert not sites.unknown

It speaks HTTP on bare streams, because an HTTP library would not lie about lengths.
"""

import asyncio
import gzip
import json
import mimetypes
import ssl
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import trustme

Content = bytes | str | Path | dict[str, Any] | list[Any]

HONEST = -1  # Answer.length_bytes: announce the real length
PIECE_BYTES = 64 * 1024
# How a conversation ends: the client hangs up, or does not trust us; the server ends.
ENDED = (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError)


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names are in lower case."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""
    own: bool = False  # asked of the plain server itself, not of a site behind it

    @property
    def host(self) -> str:
        return "" if self.own else urlsplit(self.url).hostname or ""

    @property
    def path(self) -> str:
        return urlsplit(self.url).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True))

    @property
    def cookies(self) -> dict[str, str]:
        pairs = self.headers.get("cookie", "").split("; ")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@dataclass
class Answer:
    """What is sent back; the fields after `headers` make it a misbehaving server."""

    content: Content = b""  # a dict or list is sent as JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0  # before the first byte
    piece_bytes: int = PIECE_BYTES  # with pause_s: a trickle
    pause_s: float = 0  # after each piece
    hold: threading.Event | None = None  # half the body, then wait until this is set
    length_bytes: int | None = HONEST  # another number lies; None announces nothing
    ranges: bool = True  # honour the Range header
    endless: bool = False  # repeat the content until the client hangs up
    silent: bool = False  # read the request, never answer

    def body(self) -> bytes:
        match self.content:
            case bytes():
                return self.content
            case str():
                return self.content.encode()
            case Path():
                return self.content.read_bytes()
            case _:
                return json.dumps(self.content).encode()

    def content_type(self, path: str) -> str:
        match self.content:
            case dict() | list():
                return "application/json"
            case str():
                return "text/html; charset=utf-8"
            case Path():
                path = self.content.name
        return mimetypes.guess_type(path)[0] or "application/octet-stream"


Handler = Callable[[Request], "Answer | Content"]


def redirect(target: str, status: int = 302) -> Answer:
    return Answer(status=status, headers={"Location": target})


def gzip_bomb(size_bytes: int, content_type: str = "image/jpeg") -> Answer:
    """Zeros that are a thousandth of their size on the wire."""
    headers = {"Content-Encoding": "gzip", "Content-Type": content_type}
    return Answer(gzip.compress(bytes(size_bytes)), headers=headers)


def in_turn(*answers: Answer | Content) -> Handler:
    """One answer per request, in order; the last one stays."""
    rest = list(answers)
    return lambda request: rest.pop(0) if len(rest) > 1 else rest[0]


class Sites:
    """The server; a context manager that runs it in a thread of its own."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.hits: Counter[str] = Counter()  # by "/path" or "host/path"
        self.unknown: list[str] = []  # addresses asked for that nobody registered
        self.errors: list[Exception] = []  # from handlers; raised at the end
        self._routes: dict[str, Handler] = {}
        self._asked = threading.Condition()
        self._ready: Future[int] = Future()
        self._folder = tempfile.TemporaryDirectory()
        self._authority = trustme.CA()
        self._contexts: dict[str, ssl.SSLContext] = {}

    def serve(self, where: str, content: Handler | Answer | Content, **how: Any) -> str:
        """Answers `where` from now on; returns the address to ask for.

        Args:
            where: "/path" on this server or "https://host/path" behind the proxy.
                Both may hold `*`; the query is the handler's business. An exact path
                beats a pattern, a later pattern an earlier one.
            content: what to send, or a function from Request to that.
            how: fields of Answer, as in `status=404` or `length_bytes=5`.
        """
        if callable(content):
            self._routes[_key(where)] = content
        else:
            answer = content if isinstance(content, Answer) else Answer(content)
            fixed = replace(answer, **how)
            self._routes[_key(where)] = lambda request: fixed
        return self.url(where) if where.startswith("/") else where

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._ready.result()}"

    @property
    def authority_file(self) -> Path:
        """The authority's certificate, for whoever is to trust the sites."""
        return Path(self._folder.name, "authority.pem")

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead requests, urllib and yt-dlp here."""
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = {name: f"http://{self.address}" for name in names}
        pem = str(self.authority_file)
        trust = {"REQUESTS_CA_BUNDLE": pem, "SSL_CERT_FILE": pem}
        lower = {name.lower(): value for name, value in proxies.items()}
        return {**proxies, **lower, **trust, "NO_PROXY": "", "no_proxy": ""}

    def forget(self) -> None:
        """Be as at first, but for the certificates."""
        for made in (self.requests, self.hits, self.unknown, self.errors, self._routes):
            made.clear()

    def wait_for(self, where: str, times: int = 1, timeout_s: float = 60) -> None:
        """Returns once `where` was asked for that often; else TimeoutError."""
        key = _key(where)
        with self._asked:
            if not self._asked.wait_for(lambda: self.hits[key] >= times, timeout_s):
                raise TimeoutError(f"{where} was asked for {self.hits[key]} times")

    def __enter__(self) -> Self:
        self._authority.cert_pem.write_to_path(str(self.authority_file))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._folder.cleanup()
        if self.errors and error is None:
            raise self.errors[0]

    def _run(self) -> None:
        try:
            asyncio.run(self._listen())
        except Exception as error:  # the thread that entered is waiting to hear of it
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()  # and asyncio.run cancels the conversations still open

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._converse(reader, writer)
        except ENDED:
            pass
        finally:
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        origin = ""  # "https://host" once inside a tunnel
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.rstrip().split("\r\n")
            method, target, _ = line.split(" ", 2)
            pairs = (header.partition(":") for header in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            if method == "CONNECT":
                host = target.rpartition(":")[0]
                if not self._knows(host):
                    self._remember(Request(method, f"https://{target}", headers), None)
                    writer.write(_head(502, {"Content-Length": "0"}))
                    return
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                await writer.drain()
                await writer.start_tls(self._context(host))
                origin = f"https://{host}"
                continue
            own = not origin and target.startswith("/")
            base = f"http://{headers.get('host', self.address)}" if own else origin
            own = own or target.startswith(self.url("/"))
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            request = Request(method, base + target, headers, body, own)
            if not await self._send(writer, request, self._answer(request)):
                return

    def _answer(self, request: Request) -> Answer:
        handler = self._handler(f"{request.host}{request.path}")
        self._remember(request, handler)
        if handler is None:
            return Answer(status=404 if self._knows(request.host) else 502)
        try:
            answer = handler(request)
        except Exception as error:
            self.errors.append(error)
            return Answer(status=500)
        return answer if isinstance(answer, Answer) else Answer(answer)

    def _handler(self, key: str) -> Handler | None:
        if key in self._routes:
            return self._routes[key]
        found = (self._routes[p] for p in reversed(self._routes) if fnmatchcase(key, p))
        return next(found, None)

    def _knows(self, host: str) -> bool:
        return any(fnmatchcase(host, key.partition("/")[0]) for key in self._routes)

    def _remember(self, request: Request, handler: Handler | None) -> None:
        with self._asked:
            self.requests.append(request)
            self.hits[f"{request.host}{request.path}"] += 1
            if handler is None:
                self.unknown.append(request.url)
            self._asked.notify_all()

    def _context(self, host: str) -> ssl.SSLContext:
        if host not in self._contexts:
            self._contexts[host] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(host).configure_cert(self._contexts[host])
        return self._contexts[host]

    async def _send(
        self, writer: asyncio.StreamWriter, request: Request, answer: Answer
    ) -> bool:
        """Sends the answer; True when the connection can take another request."""
        if answer.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(answer.delay_s)
        body, status, headers = answer.body(), answer.status, dict(answer.headers)
        headers.setdefault("Content-Type", answer.content_type(request.path))
        if answer.endless:
            body *= 1 + answer.piece_bytes // max(1, len(body))
        elif answer.ranges and status == 200:
            headers.setdefault("Accept-Ranges", "bytes")
            body, status, extra = _ranged(body, request.headers.get("range", ""))
            headers |= extra
        length = len(body) if answer.length_bytes == HONEST else answer.length_bytes
        reusable = length == len(body) and not answer.endless
        if length is not None and not (answer.endless and length == len(body)):
            headers.setdefault("Content-Length", str(length))
        if not reusable:
            headers["Connection"] = "close"
        writer.write(_head(status, headers))
        if request.method == "HEAD":
            return reusable
        offset, half = 0, len(body) // 2
        while answer.endless or offset < len(body):
            if answer.hold and offset >= half:
                while not answer.hold.is_set():
                    await asyncio.sleep(0.01)
            end = offset + answer.piece_bytes
            if answer.hold and offset < half:
                end = min(end, half)
            writer.write(body[offset:end])
            await writer.drain()
            await asyncio.sleep(answer.pause_s)
            offset = 0 if answer.endless and end >= len(body) else end
        return reusable


def _key(where: str) -> str:
    """Routes are kept as "host/path"; this server's own have no host."""
    if where.startswith("/"):
        return where
    return where.partition("://")[2] if "://" in where else where


def _head(status: int, headers: dict[str, str]) -> bytes:
    phrases = {item.value: item.phrase for item in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {phrases.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode("latin-1")


def _ranged(body: bytes, wanted: str) -> tuple[bytes, int, dict[str, str]]:
    """The part of the body that a Range header of one range asks for."""
    first, dash, last = wanted.removeprefix("bytes=").partition("-")
    if not dash:
        return body, 200, {}
    start = int(first) if first else max(0, len(body) - int(last))
    end = min(int(last) + 1, len(body)) if first and last else len(body)
    if start >= len(body):
        return b"", 416, {"Content-Range": f"bytes */{len(body)}"}
    place = f"bytes {start}-{end - 1}/{len(body)}"
    return body[start:end], 206, {"Content-Range": place}
