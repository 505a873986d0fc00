"""A runner and a worker that do nothing, for tests that download nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bossbot import (
    App,
    Cause,
    Fetched,
    Job,
    JobFailed,
    Part,
    Progress,
    Ran,
    Request,
    Runner,
    Worker,
    hookimpl,
)

NOTHING = JobFailed(Cause.UNSUPPORTED, "nothing is downloaded here")


class NoRunner(Runner):
    """Asks the engines in this process, and runs none."""

    async def supports(
        self, urls: Sequence[str], without: str = "", **how: bool
    ) -> list[str]:
        """The first engine that knows each link."""
        engines = self.app.plugins.registered("engines").values()
        return [next((e.name for e in engines if e.supports(u)), "") for u in urls]

    async def versions(self) -> dict[str, tuple[str, int | None]]:
        """Nothing runs."""
        return {}

    async def fetch(
        self,
        request: Request,
        on_progress: Callable[[Progress], None],
        on_file: Callable[[Fetched], None],
    ) -> Fetched:
        """Fails."""
        raise NOTHING

    async def run(
        self,
        argv: Sequence[str],
        home: Path,
        on_line: Callable[[str], None] | None = None,
        background: bool = False,
    ) -> Ran:
        """Fails."""
        raise NOTHING


class NoWorker(Worker):
    """Claims nothing."""

    async def fetch(self, job: Job, on_progress: Callable[[Progress], None]) -> Fetched:
        """Fails."""
        raise NOTHING

    async def complete(
        self, job: Job, on_progress: Callable[[Progress], None]
    ) -> Fetched:
        """Fails."""
        raise NOTHING


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"runner": NoRunner, "worker": NoWorker}
