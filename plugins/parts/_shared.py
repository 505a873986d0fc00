"""What a queue has, too, that several processes share: word of the others, and to them."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, cast

from bossbot import App, Job, Queue

GATEWAY = ""  # asks the gateway, in place of a worker's name


class AtWork(NamedTuple):
    """A process that works on a shared queue."""

    name: str
    version: str
    slots: int  # how many downloads it runs at most; 0: it has stopped
    running: int
    seen_s: float  # how long ago it was seen; one that runs asks for jobs every second


class Question(NamedTuple):
    """A question of another process to this one."""

    text: str
    answer: Callable[[str], Awaitable[None]]


class SharedQueue(Queue):
    """A queue that several processes share."""

    shared = True

    @abstractmethod
    async def workers(self) -> Sequence[AtWork]:
        """The workers that were seen in the last day."""

    @abstractmethod
    async def ask(
        self, worker: str, topic: str, text: str, within_s: float
    ) -> str | None:
        """The answer of a worker's process, which has the files of the jobs with this
        worker, or of the ``GATEWAY``; None if there is none in time. Anybody who can
        write into the queue may have made it up.

        Raises:
            OutOfReach: the queue cannot be reached.
        """

    @abstractmethod
    def questions(self, topic: str) -> AsyncIterator[Question]:
        """The questions of others to this process, as they come."""

    @abstractmethod
    def forgotten(self) -> AsyncIterator[Job]:
        """Jobs that ``forget`` has removed in any process, without names and ids of people:
        their files may be on this machine. Earlier ones come first, some of them
        again."""

    @abstractmethod
    def may_lag(self, job: Job) -> bool:
        """Whether more of a job may have been posted than the queue has recorded, since it
        may be an older copy of itself."""

    @abstractmethod
    async def take_turn(self, urgent: bool) -> None:
        """Wait until a request to Discord is in the budget of all processes that share
        the queue; those that are ``urgent`` come before others."""


def shared_queue(app: App) -> SharedQueue | None:
    """The app's queue, if it is shared."""
    return cast(SharedQueue, app.queue) if app.queue.shared else None


def is_elsewhere(app: App, job: Job) -> bool:
    """Whether another machine has the files of a job."""
    return app.queue.shared and job.worker not in ("", app.worker.name)
