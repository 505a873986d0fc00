"""Logs the versions and ages of the engines at the start, and how to update them."""

from bossbot_plugins._update import commands
from loguru import logger

from bossbot import App, hookimpl

OLD_DAYS = 60  # sites change faster than that


@hookimpl
async def run(app: App) -> None:
    versions = await app.runner.versions()
    for name, (version, days) in versions.items():
        if days is None:
            logger.info("{} {}", name, version)
        elif days <= OLD_DAYS:
            logger.info("{} {}, {} days old", name, version, days)
        else:
            logger.warning(
                "{} {} is {} days old, and sites have changed since. Update: {}, and "
                "start the bot again.",
                name,
                version,
                days,
                commands(),
            )
