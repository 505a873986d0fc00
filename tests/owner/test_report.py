"""What `report` and messages to the owner show of the log: nobody's secrets, and no more of
people than is needed."""

import pytest
from bossbot_plugins._reports import clean, pick
from bossbot_plugins.report import differing

from bossbot import Settings

OPAQUE = "a1B2c3D4e5" * 4
DISCORD = "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ.GabcdE.abcdefghijklmnopqrstuvwxyz012"
WEBHOOK = "discord.com/api/webhooks/123456789012345678/aBcDeFgHiJkLmNoPqRsT"

CLEANED = {
    f"Authorization: Bot {DISCORD} job=1": "Authorization: [secret] job=1",
    f"it was {DISCORD}": "it was [secret]",
    f"Bearer {OPAQUE}": "Bearer [secret]",
    f"left {OPAQUE}, and went on": "left [secret], and went on",
    "Cookie: a=1; sessionid=2%3A3": "Cookie: [secret]",
    "'set-cookie': 'a=1; b=2', 'x'": "'set-cookie': [secret]",
    "'auth_token': 'dead', 'ct0': 'beef'": "'auth_token': '[secret]', 'ct0': '[secret]'",
    ".a.b\tTRUE\t/\tTRUE\t19\tsid\tdead": ".a.b TRUE / TRUE 19 sid [secret]",
    "password=hunter2&api_key=x": "password=[secret]&api_key=[secret]",
    "a%3Ftoken%3Dabc": "a%3Ftoken%3D[secret]",
    WEBHOOK: "discord.com/…",
    "HTTPS://U:P@A.example/b?c#d //u:p@b": "HTTPS://A.example/… //[secret]@b",
    "/home/mary/x, /Users/mary": "/home/[name]/x, /Users/[name]",
    r"C:\Users\Mary Smith\x d:\\users\\mary": r"C:\Users\[name]\x d:\\users\\[name]",
    "of mary.s+x@mail.example.org": "of [e-mail]",
    "from 203.0.113.7:80 and 2001:db8::1": "from [address]:80 and [address]",
    "guild=123456789012345678 <@123456789012345678>": " <@[id]>",
    "youtu.be/abc?si=x www.a.example/b": "youtu.be/… www.a.example/…",
    r'"url": "https:\/\/a.example\/b\/c"': r'"url": "https:\/\/a.example/…"',
    "https%3A%2F%2Fa.example%2Fb": "https%3A%2F%2Fa.example/…",
    'File "/srv/mary/data/x.py", line 1': 'File "…/x.py", line 1',
    "/usr/lib/python3.11/asyncio/tasks.py": "…/asyncio/tasks.py",
    "/x/site-packages/discord/http.py:4": "…/discord/http.py:4",
    "```` @everyone": "''' @everyone",
}
KEPT = [
    "the bot cannot listen on 127.0.0.1:9642",
    "2026-11-27 12:50:00 yt-dlp 2026.10.26.232813, gallery-dl 1.32.18",
    "Linux-6.12.47+rpt-rpi-v8-aarch64-with-glibc2.41",
    "bossbot_plugins.discord_courier.a_function_with_a_long_name",
    "error in /queue: text/html, and/or 1/2",
    "author: NASA; the token is missing; KeyError: 'token'",
]


@pytest.mark.parametrize(
    ("line", "shown"), [*CLEANED.items(), *((line, line) for line in KEPT)]
)
def test_line_for_others_says_what_helps_and_no_more(line: str, shown: str) -> None:
    assert clean(line) == shown


def test_line_with_the_id_within_another_number_is_not_shown() -> None:
    lines = ["a job=00deadbeef", "b 123deadbeef45", "c error deadbeef in x", "  d", "e"]
    assert pick("deadbeef", iter(lines)) == ["c error deadbeef in x", "  d"]


def test_folders_at_their_default_are_no_changed_settings() -> None:
    lines = differing("", Settings(max_items=3), {"plugins", "discord_token"})
    assert [*lines] == ["- max_items = 3"]
