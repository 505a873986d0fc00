"""Runs a script as `python script ...` would, with discord.py led to a fake Discord.

    FAKE_DISCORD_URL=http://127.0.0.1:1234 python run_redirected.py bot.py ...

Only the two addresses of discord.py change; `sys.argv`, `sys.path[0]`, `__file__` and
`__name__` are as in a direct run. With OWN_TERMINAL, Ctrl-C on its stdin ends it.
"""

import fcntl
import os
import runpy
import sys
import termios
from pathlib import Path

import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

if os.environ.pop("OWN_TERMINAL", ""):
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
url = yarl.URL(os.environ["FAKE_DISCORD_URL"])
Route.BASE = str(url / "api/v10")
DiscordWebSocket.DEFAULT_GATEWAY = url.with_scheme("ws") / "gateway"

del sys.argv[0]
script = os.path.abspath(sys.argv[0])
sys.path[0] = str(Path(script).resolve().parent)
runpy.run_path(script, run_name="__main__")
