"""A server's use of its quota: one fact for each server, which all processes share."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

from bossbot import TERMINAL_STATUSES, App, Job, _, format_size, now

DAY_S = 86400
TRIES = 100  # at a change: others make one at the same time
T = TypeVar("T")


class Held(NamedTuple):
    """What a job has of a quota, in bytes."""

    posted: int = 0
    reserved: int = 0
    claim_number: int = 0
    files: dict[str, int] = {}  # noqa: RUF012 - sizes of those seen so far, by name


class Ledger:
    """What a server, or a direct message, has used of a day's quota (days since 1970, by
    UTC). A job that crosses midnight counts for the new day."""

    def __init__(self, day: int, posted: int = 0) -> None:
        self.day = day
        self.posted = posted  # by jobs that have ended
        self.jobs: dict[str, Held] = {}  # those that have not, as far as is known

    @classmethod
    def read(cls, text: str) -> Self:
        """The ledger of a fact, as of today; empty if there is none yet."""
        try:
            day, posted, jobs = json.loads(text)
            ledger = cls(today(), int(posted) if day == today() else 0)
            for job_id, (sent, reserved, number, files) in jobs.items():
                held = Held(int(sent), int(reserved), int(number), dict(files))
                ledger.jobs[job_id] = held
            return ledger
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls(today())

    def text(self) -> str:
        return json.dumps([self.day, self.posted, self.jobs], separators=(",", ":"))

    @property
    def sums(self) -> tuple[int, int]:
        """How many bytes were posted, and how many are reserved."""
        held = self.jobs.values()
        posted = self.posted + sum(one.posted for one in held)
        return posted, sum(one.reserved for one in held)

    def of(self, job: Job) -> Held:
        """What a job has, by its newest claim that is known."""
        own = self.jobs.get(job.id, Held())
        number = max(own.claim_number, job.claim_number)
        return own._replace(claim_number=number, files={**own.files})

    def room(self, job: Job, limit: int) -> int | None:
        """What of the limit the others leave to a job; None without a limit."""
        own = self.of(job)
        others = sum(self.sums) - own.posted - own.reserved
        return limit - others if limit else None

    def settle(self, job: Job) -> None:
        """Write down what a job that does not run any more has posted; twice does no
        harm."""
        own = self.jobs.get(job.id)
        if own is None or own.claim_number > job.claim_number:
            return
        sent = sent_bytes(job, own.files)
        if job.status not in TERMINAL_STATUSES:
            number = job.claim_number
            self.jobs[job.id] = own._replace(
                posted=sent, reserved=0, claim_number=number
            )
            return
        del self.jobs[job.id]
        if not job.finished_at or job.finished_at // DAY_S >= self.day:
            self.posted += sent


def sent_bytes(job: Job, sizes: dict[str, int]) -> int:
    names = {n for post in job.posts if post.state == "sent" for n in post.files}
    return sum(sizes.get(name, 0) for name in names)


def today() -> int:
    return int(now() // DAY_S)


def holder_of(job: Job) -> int:
    """Whose quota it is: the server's, or the direct message's, which names no member."""
    return job.guild_id or -job.channel_id


def fact(holder: int) -> str:
    return f"quota:{holder}"


async def change(app: App, holder: int, work: Callable[[Ledger], T]) -> T:
    """The result of ``work``, which changes a ledger: again if another process was
    faster."""
    for _time in range(TRIES):
        old = await app.facts.get(fact(holder))
        ledger = Ledger.read(old)
        result = work(ledger)
        new = ledger.text()
        if new == old or await app.facts.swap(fact(holder), old, new):
            return result
    raise RuntimeError(f"the fact {fact(holder)} cannot be changed")  # it is not a text


async def used(app: App, holder: int) -> tuple[int, int]:
    """How many bytes were posted today, and how many are reserved."""
    return Ledger.read(await app.facts.get(fact(holder))).sums


async def told(app: App, guild_id: int) -> str:
    """A text with a server's use of today's quota; "" without the plugin. Direct
    messages have no shared quota."""
    plugin = app.plugins.all.get("quota")
    if plugin is None or plugin.off or not guild_id:
        return ""
    table = app.guilds.tables(guild_id).get("quota", {})
    guild: Any = plugin.guild_config.model_validate(table)
    limit = guild.within(plugin.config, app.settings).daily_quota
    posted, reserved = await used(app, guild_id)
    shown = {"posted": format_size(posted), "quota": format_size(limit)}
    text = _("{posted} of {quota}") if limit else _("{posted}, no limit")
    if reserved:
        shown["reserved"] = format_size(reserved)
        text += "\n" + _("{reserved} reserved for running downloads")
    return text.format(**shown)


def most_bytes(app: App, job: Job) -> int:
    """The largest file that a job's server wants; the owner's without the plugin."""
    plugin = app.plugins.all.get("quota")
    if plugin is None or plugin.off:
        return int(app.settings.max_file_size)
    guild: Any = app.plugins.guild_config(plugin, job)
    return int(guild.max_file_size)
