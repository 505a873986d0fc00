"""A small HTTP server in threads of its own, for programs that watch the bot: it also
answers while the bot's event loop is blocked."""

import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bossbot_plugins._health import Page

MAX_REQUESTS = 8  # at once; more are turned away
PATIENCE_S = 5.0  # with a client that says nothing, or does not read


class Port(ThreadingHTTPServer):
    """Answers GET for some paths with what their functions return, which are called in a
    thread for each request. Raises OSError when the address cannot be had."""

    daemon_threads = True  # none of them keeps the bot from ending

    def __init__(
        self, host: str, port: int, pages: Mapping[str, Callable[[], Page]]
    ) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        self.pages = pages
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__((host, port), Answer)
        threading.Thread(target=self.serve_forever, name="port", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def server_bind(self) -> None:
        # HTTPServer would look its own name up, for which nobody asks.
        socketserver.TCPServer.server_bind(self)

    def close(self) -> None:
        """Let go of the address; blocks for up to half a second."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

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
        self.wfile.write(body)

    def version_string(self) -> str:
        return "Boss-Bot"

    def log_message(self, *words: Any) -> None:
        """Requests that come every few seconds are not logged."""
