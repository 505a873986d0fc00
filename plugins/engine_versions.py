"""Says at the start which engines run and how old they are, and how to update them."""

import importlib.metadata
import re
from datetime import UTC, date, datetime
from pathlib import Path

from loguru import logger

from bossbot import BossBot, hookimpl

OLD_DAYS = 60  # sites change faster than that
UPDATE = "Update: .venv/bin/pip install -U -r requirements.txt, and start again."


@hookimpl
async def bot_started(bot: BossBot) -> None:
    children = bot.pipeline.children
    versions = await children.ask("versions", plugins=children.engine_files())
    for name, version in versions.items():
        days = age_days(name, version)
        logger.info("{} {}, {} days old", name, version, days)
        if days > OLD_DAYS:
            logger.warning("{} is {} days old. {}", name, days, UPDATE)


def age_days(name: str, version: str) -> int:
    """Days since a release whose version is its date, else since it was installed."""
    today = datetime.now(UTC).date()
    if found := re.match(r"(20\d\d)\.(\d\d?)\.(\d\d?)", version):
        released = date(*(int(part) for part in found.groups()))
    else:
        folder = Path(str(importlib.metadata.distribution(name).locate_file("")))
        found_in = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        stamp = (found_in if found_in.exists() else folder).stat().st_mtime
        released = datetime.fromtimestamp(stamp, UTC).date()
    return (today - released).days
