"""The commands that update the bot, for messages to the owner."""

import sys

from bossbot import HERE

COMPOSE = "docker compose -f deploy/compose.yaml"


def commands() -> str:
    """What to run in the bot's folder, as docs/install.md says."""
    deploy = HERE / "deploy"
    if (deploy / "start").exists() and not (deploy / "Dockerfile").exists():
        # This is the image. Its folder is on the machine that it was built on.
        return f"git pull && {COMPOSE} build --pull --no-cache && {COMPOSE} up -d"
    return f"git pull && {sys.executable} -m pip install -U -r requirements.txt"
