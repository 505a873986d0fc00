"""A small HTTP server in threads of its own, for programs that watch the bot: it also
answers while the bot's event loop is blocked."""

import contextlib
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bossbot_plugins._health import Page

MAX_REQUESTS = 16  # at once; more are turned away
MAX_OF_ADDRESS = 8  # of these, so that one machine leaves room for the others
PATIENCE_S = 5.0  # with a client that says nothing, or does not read
LOOK_S = 0.5  # between two looks at what takes too long
WHOLE_S = 10.0  # for a request and its answer, also where a byte comes now and then


class Port(ThreadingHTTPServer):
    """Answers GET for some paths with what their functions return, which are called in a
    thread for each request. Raises OSError when the address cannot be had."""

    request_queue_size = 128  # connections that wait to be accepted
    daemon_threads = True  # none of them keeps the bot from ending

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.pages = pages
        self._open = dict[socket.socket, tuple[str, float]]()  # from where, since when
        super().__init__(found[0][4], Answer)  # type: ignore[arg-type]
        threading.Thread(
            target=self.serve_forever, args=(LOOK_S,), name="port", daemon=True
        ).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def server_bind(self) -> None:
        # HTTPServer would look its own name up, for which nobody asks.
        socketserver.TCPServer.server_bind(self)

    def close(self) -> None:
        """Let go of the address; blocks for up to half a second."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        host, known = client_address[0], [*self._open.values()]
        of_host = Counter(one for one, _ in known)[host]
        if len(known) < MAX_REQUESTS and of_host < MAX_OF_ADDRESS:
            self._open[request] = host, time.monotonic()
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def close_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().close_request(request)

    def service_actions(self) -> None:
        """End connections that take too long; called after each connection and each
        pause."""
        for request, (_, since) in [*self._open.items()]:
            if time.monotonic() - since > WHOLE_S:
                with contextlib.suppress(OSError):  # it has just ended
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Answer(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = PATIENCE_S
    server: Port

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if page := self.server.pages.get(path):
            body, kind, status = page()
        else:
            known = ", ".join(self.server.pages)
            body, kind, status = f"There is: {known}\n".encode(), "text/plain", 404
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "Boss-Bot"

    def log_message(self, *words: Any) -> None:
        """Requests that come every few seconds are not logged."""
