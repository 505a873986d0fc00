"""Exits with 0 if /healthz reports no problem, and prints its answer.

Docker runs this every minute, so it imports next to nothing.
"""

import os
import socket
import sys

listen = os.environ.get("BOSS_BOT_PLUGINS__METRICS__LISTEN", "")
if not listen:  # switched off: nothing to ask
    sys.exit(0)
host, _, port = listen.rpartition(":")
try:
    address = (host.strip("[]"), int(port))
    with socket.create_connection(address, timeout=8) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
except (OSError, ValueError) as error:
    sys.exit(f"{listen}: {error}")
head, _, body = answer.partition(b"\r\n\r\n")
print(body.decode(errors="replace").strip())
sys.exit(b" 200 " not in head.split(b"\r\n")[0])
