"""Finds the cause of a failure, and stops a download that must end, for both
engines."""

import contextlib
import errno
import itertools
import re
import time
from collections.abc import Callable, Iterable
from email.utils import mktime_tz, parsedate_tz
from typing import Any
from urllib.parse import urlsplit

from bossbot import (
    N_,
    Cause,
    JobFailed,
    Progress,
    Report,
    Request,
    _,
    cut_line,
    escape,
)

# What an HTTP status means for a member. 403 may also stand for a private post or a
# blocked address, but a login helps most often. The last two rows take the rest: either
# the site expects another kind of request, or it is out of order.
STATUS_CAUSES = [
    (r"40[1237]", Cause.LOGIN),
    (r"400|404|410|414", Cause.GONE),
    (r"408|504|524", Cause.TIMED_OUT),
    (r"420|429", Cause.RATE_LIMITED),
    (r"451", Cause.REGION),
    (r"30[12378]", Cause.INVALID_URL),  # without a place to go on
    (r"^[1-4]", Cause.ENGINE_OUTDATED),
    (r"", Cause.NETWORK),
]


def first_cause(text: str, table: Iterable[tuple[str, Cause]]) -> Cause | None:
    """The cause of the first pattern that is found in the text, or None. Case does not
    matter; ``^`` and ``$`` match at each line."""
    flags = re.IGNORECASE | re.MULTILINE
    text = "\n".join(map(cut_line, text.split("\n")))  # a pattern may be slow
    found = (cause for words, cause in table if re.search(words, text, flags))
    return next(found, None)


# What a moment later may not be so any more: a server that is down or busy, a connection
# that was cut, a body that ended too soon.
PASSING = (
    r"(?:'|HTTP Error )5\d\d\b|reset by peer|Connection ?(?:Reset|aborted)|Broken pipe"
    r"|RemoteDisconnected|IncompleteRead|without response|EOF occurred|UNEXPECTED_EOF"
    r"|size mismatch|bytes read|ContentTooShort|too short|Response ended prematurely"
    r"|Empty file"
)
PASSING_CAUSES = (Cause.NETWORK, Cause.TIMED_OUT, Cause.NO_MEDIA)
MAX_WAIT_S = 10.0**9  # that is believed


NO_NAME = (
    r"resolv|Name or service not known|No address associated|nodename nor servname"
)
NO_ADDRESS = (
    r"\bip(?: address)? (?:is |was |has been )?(?:blocked|banned|refused|denied)"
    r"|(?:block|ban|refus|den)\w* (?:for |to )?your (?:ip|network|address)|whoa there"
    r"|network security|unusual traffic|\bVPN\b|data ?cent(?:er|re)"
)
# A status without a word on logins.
REFUSED = (
    r"\A(?!.*(?:log.?in|sign.?in|logged|authenti|cookie|credential|account)).*\b403\b"
)
# What a member reads in place of the cause's sentence, by what the log says: cause, words
# and sentence, "" for the cause's; the first match wins.
REASONS = [
    (
        Cause.NETWORK,
        r"certificate",
        N_("The site's certificate is not valid, so I do not open it. Check the link."),
    ),
    (Cause.NETWORK, r"Temporary failure in name resolution", ""),  # it may be our own
    (
        Cause.NETWORK,
        NO_NAME,
        N_("There is no site of that name. Check the link and paste it again."),
    ),
    (
        Cause.NETWORK,
        r"No connection adapters",
        N_("That link does not lead to a web page. Check the link."),
    ),
    (Cause.INVALID_URL, r"redirects|redirect loop", N_("That link leads in circles.")),
    (
        Cause.LOGIN,
        NO_ADDRESS,
        N_(
            "The site blocks the bot's address. Ask the bot's owner to add a login or a proxy."
        ),
    ),
    (
        Cause.LOGIN,
        REFUSED,
        N_(
            "The site does not show that to the bot: it requires a login, or blocks "
            "the bot's address or country. Ask the bot's owner to add a login or a proxy."
        ),
    ),
]


def named_reason(cause: Cause, said: str) -> str:
    """The sentence for a failure, if the log has more than its cause, else ""."""
    flags = re.IGNORECASE | re.DOTALL
    words = said[:2000]
    found = (
        text for c, p, text in REASONS if c is cause and re.search(p, words, flags)
    )
    return next(found, "")


def unsupported(url: str) -> str:
    """The sentence for a link that nothing can fetch."""
    host = escape(urlsplit(url).hostname or "")
    return _("Not supported: I cannot download from {host}.").format(host=host)


def retry_after_s(cause: Cause, said: str, asked_s: float | None) -> float | None:
    """The wait before another try: the site's own, 0 for a failure that may pass by
    itself, None for one that will not pass."""
    if cause is Cause.RATE_LIMITED:
        return asked_s
    passing = cause in PASSING_CAUSES and re.search(PASSING, said, re.IGNORECASE)
    return (asked_s or 0.0) if passing else None


def wait_asked_s(headers: Any) -> float | None:
    """The wait that a response asks for: ``Retry-After`` in seconds or as a date, or
    ``x-rate-limit-reset`` in Unix seconds; None without either."""
    after, reset = headers.get("Retry-After") or "", headers.get("x-rate-limit-reset")
    with contextlib.suppress(ValueError, OverflowError):
        if re.fullmatch(r"\d+(\.\d*)?", after.strip()):
            return min(float(after), MAX_WAIT_S)
        if parts := parsedate_tz(after):
            return max(mktime_tz(parts) - time.time(), 0)
        return max(int(float(reset or "")) - time.time(), 0)
    return None


class Enough(BaseException):
    """Ends a download from deep inside an engine, which would catch an ``Exception``
    and go on. Without a failure there is simply nothing more to fetch."""

    def __init__(self, failure: JobFailed | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure


def request_counter(request: Request) -> Callable[[], None]:
    """A function to call for each request; raises Enough when there are too many."""
    numbers, most = itertools.count(1), request.max_requests

    def count() -> None:
        if next(numbers) > most:
            raise Enough(JobFailed(Cause.TOO_LARGE, f"over {most} requests"))

    return count


def report_progress(request: Request, report: Report, progress: Progress) -> None:
    """Report the progress of a file.

    Raises:
        OSError: the file is larger than it may be; the engine goes on to the next.
        Enough: the job is.
    """
    if request.max_file_bytes and progress.done_bytes > request.max_file_bytes:
        raise OSError(errno.EFBIG, "File too large")
    try:
        report.progress(progress)
    except JobFailed as error:
        raise Enough(error) from error
