"""Writes the log: to the console, and with every detail to a file a day in data/logs.

No line holds a secret, and a message is one line; a traceback shows the values of
variables with ``--debug`` alone.
"""

import logging
import os
import sys
import traceback
from typing import Any, TextIO

from loguru import logger

from bossbot import Settings, hookimpl, one_line, redact


@hookimpl(trylast=True)  # any other log is there because the host wants it
def register_log(settings: Settings, debug: bool, console: TextIO) -> bool:
    def clean(record: Any) -> None:
        """Redact, keep a message on one line, and render the traceback, with variables
        only when debugging."""
        bound = (f"{key}={value}" for key, value in record["extra"].items() if value)
        record["message"] = one_line(redact(record["message"]))
        lines = [" ".join([record["message"], *bound])]
        if error := record["exception"]:
            trace = traceback.TracebackException(*error, capture_locals=debug)
            lines += "".join(trace.format()).splitlines()
            record["exception"] = None
        text = "\n".join(one_line(line, fold=False) for line in lines)
        record["extra"]["text"] = redact(text).replace("\n", "\n  ")

    style = "{time:YYYY-MM-DD HH:mm:ss} {level:<7} {extra[text]}"
    level = "DEBUG" if debug else settings.log_level
    common: dict[str, Any] = {"format": style, "diagnose": False, "backtrace": False}
    logger.remove()
    logger.configure(patcher=clean)
    logger.add(
        console,
        level=level if console is sys.stdout or debug else "WARNING",
        filter=lambda record: record["level"].no < logging.ERROR,
        **common,
    )
    logger.add(sys.stderr, level="ERROR", **common)
    folder = settings.data_dir / "logs"
    try:
        logger.add(
            folder / "boss-bot_{time:YYYY-MM-DD}.log",
            level="DEBUG",
            rotation="00:00",
            retention=f"{settings.log_retention_days} days",
            catch=True,  # a full disk must not stop the bot
            opener=lambda path, flags: os.open(path, flags, 0o600),
            **common,
        )
    except OSError as error:
        logger.error("{}: {}. Change the owner of what is in it.", folder, error)
    logging.getLogger().setLevel(logging.NOTSET)
    for name in ("aiosqlite", "asyncio"):  # every statement, else
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("discord.gateway", "discord.http"):  # every message of every channel
        logging.getLogger(name).setLevel(logging.NOTSET if debug else logging.INFO)
    return True
