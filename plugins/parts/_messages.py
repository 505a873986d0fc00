"""The messages that a child may send to the bot: their form, size and rate.

A child may have been taken over by what it downloads. Both sides use this: the child
brings what an engine reports into form, and the bot ends a child whose messages are not
in that form. The bot never repeats a child's own sentences: it accepts only those that
it has itself.
"""

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from bossbot import (
    N_,
    SENTENCES,
    Cause,
    JobFailed,
    Progress,
    Ran,
    one_line,
)

MAX_LINE_BYTES = 256 * 1024
BURST_BYTES = 4 * 2**20  # that a child may say at once
BYTES_PER_S = 64 * 1024  # and then, on and on
LINE_BYTES = 256  # what each line counts for on top of its length
NONSENSE = (
    *(LookupError, TypeError, ValueError, AttributeError),
    *(OverflowError, RecursionError),
)

MAX_NAME, MAX_TITLE, MAX_ALT, MAX_TEXT = 300, 300, 1100, 8000  # characters
MAX_PATH, MAX_VERSION, MAX_OUTPUT = 4096, 100, 16384
# A link of at most 2,000 characters, for the router to check.
LINK = re.compile(r"https?://[^\s\x00-\x20\x7f]{1,1990}", re.IGNORECASE)
MAX_NUMBER = 2**53  # what any reader of JSON takes exactly
MAX_WAIT_S = 7 * 86400.0

FRAMES = "frames"  # in place of a program: see _frames.py
PRIVATE = N_("That link leads to a private address, which I do not open.")


@contextlib.contextmanager
def making_sense() -> Iterator[None]:
    """Turn the errors of nonsense into a failure."""
    try:
        yield
    except NONSENSE as error:
        raise JobFailed(Cause.INTERNAL, f"child: {error!r}") from error


def parse(line: bytes) -> dict[str, Any]:
    """A message: a table with an "event"."""
    message = json.loads(line)
    if not isinstance(message, dict) or not isinstance(message["event"], str):
        raise TypeError("no message")
    return message


def number(value: Any, most: float = MAX_NUMBER) -> Any:
    """The value if it is a number from 0 to ``most``, else None."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and 0 <= value <= most else None


def _text(said: Any) -> str:
    """A text that can be written: without halves of surrogate pairs."""
    text = (said if isinstance(said, str) else json.dumps(said))[:MAX_TEXT]
    return text.encode("utf-8", "replace").decode()


FORMS: dict[str, Callable[[Any], Any]] = {
    "title": lambda said: one_line(_text(said))[:MAX_TITLE].strip(),
    **dict.fromkeys(("uploader", "date", "text"), _text),
    **dict.fromkeys(("adult", "more", "mute"), bool),
    "leads_to": lambda said: said if LINK.fullmatch(_text(said)) else None,
    **dict.fromkeys(("items", "side", "best_side"), number),
}


def known_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that ``Report.info`` takes, in form."""
    known = {
        name: FORMS[name](value)
        for name, value in facts.items()
        if name in FORMS and value is not None
    }
    return {name: value for name, value in known.items() if value is not None}


def known_alt(said: Any) -> str:
    """The description of a file, in form."""
    return one_line(_text(said or ""))[:MAX_ALT].strip()


def known_progress(told: Progress) -> Progress:
    """A progress in form."""
    return Progress(
        name=_text(str(told.name))[:MAX_NAME],
        done_bytes=number(told.done_bytes) or 0,
        total_bytes=number(told.total_bytes),
        speed_bytes_s=number(told.speed_bytes_s),
        item=number(told.item) or 1,
        items=number(told.items),
        share=number(told.share, 1),
    )


def words(error: JobFailed) -> list[Any]:
    """A failure as it is sent: cause, detail, sentence, wait in seconds."""
    wait_s, sentence = error.retry_after_s, str(error)
    wait_s = None if wait_s is None else number(min(wait_s, MAX_WAIT_S)) or 0
    own = "" if sentence in SENTENCES.values() else sentence
    return [error.cause, error.detail or own, sentence, wait_s]


def failure(error: list[Any], sentences: Collection[str] = ()) -> JobFailed:
    """The failure that ``words`` made; its sentence is one that the bot knows: for a
    cause, PRIVATE, or one of ``sentences``."""
    cause, detail, sentence, wait_s = error
    if not isinstance(detail, str) or number(wait_s, MAX_WAIT_S) != wait_s:
        raise TypeError("no failure")
    known = sentence in (PRIVATE, *SENTENCES.values(), *sentences)
    return JobFailed(Cause(cause), detail, sentence if known else "", wait_s)


def facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a message."""
    if (known := known_facts(told)) != told:
        raise ValueError("facts out of form")
    return known


def progress(told: Mapping[str, Any]) -> Progress:
    """The progress of a message."""
    if (known := known_progress(Progress(**told))) != Progress(**told):
        raise ValueError("progress out of form")
    return known


def alt(told: str) -> str:
    """The description of the file of a message."""
    if known_alt(told) != told:
        raise ValueError("alternative text out of form")
    return told


def path(told: str) -> Path:
    """The path of a message; the storage checks where it leads."""
    if len(told.encode()) > MAX_PATH or "\0" in told:
        raise ValueError("no path")
    return Path(told)


# What the other tasks answer


def versions(
    answer: Mapping[str, Any], known: Collection[str]
) -> dict[str, tuple[str, int | None]]:
    """Each engine's version, and how many days old it is."""
    found: dict[str, tuple[str, int | None]] = {}
    for name, (version, days) in answer.items():
        if name not in known or not isinstance(days, int | None):
            raise ValueError("no versions")
        found[name] = (one_line(str(version)[:MAX_VERSION]), days)
    return found


def ran(answer: list[Any]) -> Ran:
    """How a program ended."""
    status, stdout, stderr = answer
    return Ran(int(status), str(stdout)[-MAX_OUTPUT:], str(stderr)[-MAX_OUTPUT:])
