"""A courier and a client that lead nowhere, for jobs that need no Discord."""

from collections.abc import Callable, Sequence
from typing import Any

from bossbot import (
    App,
    Client,
    Courier,
    Fetched,
    Job,
    MediaFile,
    Part,
    Plugin,
    hookimpl,
)


class NoCourier(Courier):
    """Leaves the files in the job's folder."""

    async def limit_bytes(self, job: Job) -> int:
        """Every file fits."""
        return int(self.app.settings.max_file_size)

    async def freeze(
        self, job: Job, files: Sequence[MediaFile], fetched: Fetched
    ) -> None:
        """There is no message to write."""

    async def post(self, job: Job) -> None:
        """Nobody waits."""


class NoClient(Client):
    """Is connected to nothing."""

    bot: Any = None

    async def run(self) -> None:
        """Nothing comes."""

    async def answer(self, job: Job, text: str, view: Any = None) -> int:
        """Nobody reads it."""
        return 0

    async def install(self, plugin: Plugin) -> None:
        """There are no commands."""

    async def uninstall(self, stem: str) -> None:
        """There are no commands."""

    async def sync(self, again: bool = False) -> bool:
        """There are no commands."""
        return True


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"courier": NoCourier, "client": NoClient}
