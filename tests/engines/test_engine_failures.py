"""What both engines make of HTTP statuses and headers."""

import time
from email.utils import formatdate

import pytest
from bossbot_plugins._failures import STATUS_CAUSES, first_cause, wait_asked_s

from bossbot import Cause


@pytest.mark.parametrize(
    ("statuses", "cause"),
    [
        ((401, 402, 403, 407), Cause.LOGIN),
        ((400, 404, 410, 414), Cause.GONE),
        ((408, 504, 524), Cause.TIMED_OUT),
        ((420, 429), Cause.RATE_LIMITED),
        ((451,), Cause.REGION),
        ((301, 302, 303, 307, 308), Cause.INVALID_URL),
        ((304, 405, 406, 418, 422, 499), Cause.ENGINE_OUTDATED),
        ((500, 502, 503, 520, 599, 999), Cause.NETWORK),
    ],
)
def test_status_has_its_cause(statuses: tuple[int, ...], cause: Cause) -> None:
    for status in statuses:
        assert first_cause(str(status), STATUS_CAUSES) == cause


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "17"}, 17),
        ({"Retry-After": "86400"}, 86400),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
        ({"Retry-After": "9" * 5000}, 10**9),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "00000000020"}, 20),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": f"31 Dec {'9' * 22} 1:1:1"}, None),
        ({"Retry-After": "Fri, 39 Dec 19999 1:1:1"}, None),
        ({"Retry-After": "Fri Dec 31 23:59:59 1999"}, 0),
        ({"x-rate-limit-reset": "17.5"}, 0),
        ({"x-rate-limit-reset": "inf"}, None),
        ({"x-rate-limit-reset": "9" * 400}, None),
        ({}, None),
    ],
)
def test_wait_is_as_the_headers_ask(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert wait_asked_s(headers) == wait_s


def test_wait_may_be_until_a_moment() -> None:
    then = time.time() + 100
    for headers in (
        {"Retry-After": formatdate(then, usegmt=True)},
        {"Retry-After": time.asctime(time.gmtime(then))},
        {"x-rate-limit-reset": str(int(then))},
    ):
        assert wait_asked_s(headers) == pytest.approx(100, abs=30)
