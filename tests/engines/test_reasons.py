"""The sentence for a failure names its reason."""

import pytest
from bossbot_plugins._failures import named_reason
from platform_support import Web
from sites import Answer, redirect

from bossbot import SENTENCES, Cause, Platform

pytest_plugins = ("platform_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
both_engines = pytest.mark.parametrize("engine", ["gallery-dl", "yt-dlp"])


@pytest.mark.parametrize(
    ("cause", "said", "words"),
    [
        (
            Cause.NETWORK,
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired",
            "valid",
        ),
        (
            Cause.NETWORK,
            "Hostname mismatch, certificate is not valid for 'a.example'",
            "valid",
        ),
        (Cause.NETWORK, "NameResolutionError: Failed to resolve 'a.example'", "name"),
        (Cause.NETWORK, "[Errno -2] Name or service not known", "name"),
        (Cause.NETWORK, "[Errno -5] No address associated with hostname", "name"),
        (Cause.NETWORK, "Failed to resolve: Temporary failure in name resolution", ""),
        (Cause.NETWORK, "[Errno 111] Connection refused", ""),
        (Cause.NETWORK, "HTTP Error 503: Service Unavailable", ""),
        (Cause.INVALID_URL, "TooManyRedirects: Exceeded 30 redirects.", "circles"),
        (Cause.INVALID_URL, "HTTP Error 302: redirect loop detected", "circles"),
        (Cause.INVALID_URL, "not a valid URL", ""),
        (Cause.INVALID_URL, "HTTP Error 302: Found", ""),
        (
            Cause.NETWORK,
            "No connection adapters were found for 'file:///etc/passwd'",
            "not lead to a web page",
        ),
        (Cause.LOGIN, "Your IP address is blocked from accessing this post", "address"),
        (Cause.LOGIN, "whoa there, pardner! blocked by network security", "address"),
        (Cause.LOGIN, "Sign in to confirm you\u2019re not a bot", ""),
        (Cause.LOGIN, "'403 Forbidden' for 'https://a.example/'", "country"),
        (Cause.LOGIN, "HTTP Error 403: Forbidden", "country"),
        (Cause.LOGIN, "HTTP Error 403: Forbidden\nUse --cookies to log in", ""),
        (Cause.LOGIN, "'401 Unauthorized' for 'https://a.example/'", ""),
        (Cause.LOGIN, "AuthRequired: 'auth_token' needed", ""),
    ],
)
async def test_reason_by_what_the_log_says(cause: Cause, said: str, words: str) -> None:
    sentence = named_reason(cause, said)
    assert words in sentence if words else not sentence
    assert not sentence or (sentence[0].isupper() and sentence.endswith("."))


async def test_words_of_a_site_take_no_long_time() -> None:
    for said in ("login " * 100_000, "403 " * 100_000, "your ip" * 100_000):
        for cause in Cause:
            named_reason(cause, said)


@both_engines
@pytest.mark.parametrize("status", [302, 308])
async def test_link_that_leads_in_circles(web: Web, engine: str, status: int) -> None:
    link = "http://files.example/a.mp4"
    web.sites.serve(link, redirect("http://files.example/b.mp4", status))
    web.sites.serve("http://files.example/b.mp4", redirect(link, status))
    got = await web.fetch(link, engine=engine)
    assert got.cause is Cause.INVALID_URL
    assert str(got.error) == "That link leads in circles."


@both_engines
async def test_site_that_refuses_names_what_it_may_be(web: Web, engine: str) -> None:
    platform = Platform(
        "files", r"https://files\.", "https://files.example/a.mp4", engine
    )
    link = web.sites.serve("https://files.example/a.mp4", Answer("No.", 403))
    got = await web.fetch(link, platform=platform)
    assert got.cause is Cause.LOGIN and "address or country" in str(got.error)
    link = web.sites.serve("https://files.example/b.mp4", Answer("No.", 401))
    got = await web.fetch(link, platform=platform)
    assert str(got.error) == SENTENCES[Cause.LOGIN]


@both_engines
async def test_link_that_leads_nowhere(web: Web, engine: str) -> None:
    platform = Platform(
        "files", r"https://files\.", "https://files.example/a.mp4", engine
    )
    link = "https://files.example/a.mp4"
    async with web.running(platform) as app:
        for place, cause, words in (
            ("", Cause.INVALID_URL, "not a link I can open"),
            ("file:///etc/passwd", Cause.NETWORK, "not lead to a web page"),
            ("ftp://files.example/a.mp4", Cause.NETWORK, "not lead to a web page"),
        ):
            web.sites.serve(link, redirect(place))
            job = await web.finish(link, app)
            assert (job.cause, words in job.error) == (cause, True), (place, job.error)
