"""Secrets and hostile text: what the owner keeps secret is nowhere to be read, and
what strangers write does no harm.

Secrets are planted wherever the bot gets some; then links succeed and fail, with all
that can be logged, and everything that was written or said is searched. The second
half is fuzzing: HYPOTHESIS_CASES says how many cases (100; try 100000 by hand).
"""

import asyncio
import copy
import json
import logging
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import discord
import media
import pytest
from bossbot_plugins._post_texts import clip_embed
from bossbot_plugins.download import find_links
from bossbot_plugins.file_storage import safe_name
from bossbot_plugins.platform_router import check_link
from conftest import ROOT, Home
from discord_support import Stage
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from loguru import logger
from pydantic import SecretStr
from routing import route_all
from sites import Sites
from sites_canned.twitter import Twitter
from sites_canned.youtube import YouTube

import bossbot
import bossbot_contracts
from bossbot import (
    TERMINAL_STATUSES,
    Refused,
    Route,
    Status,
    escape,
    one_line,
    redact,
)

pytest_plugins = ("discord_fixtures",)

COOKIE_IN_FILE = "planted-cookie-of-a-file-5e1f"
PROXY_PASSWORD = "planted-proxy-password-77aa"
DEAD_PROXY_PASSWORD = "planted-dead-proxy-password-b2c4"
LINK_TOKEN = "planted-link-token-90dd"
OPTION_SECRET = "planted-option-secret-c0de"


@pytest.fixture
def logs_all() -> Iterator[None]:
    """Undoes what set_up_log() does."""
    yield
    logger.remove()
    logger.configure(patcher=lambda record: None)
    logging.basicConfig(handlers=[], level=logging.WARNING, force=True)


def cookies_txt(path: Path, domain: str) -> Path:
    fields = (domain, "TRUE", "/", "TRUE", "0", "LOGIN_INFO", COOKIE_IN_FILE)
    path.write_text("# Netscape HTTP Cookie File\n" + "\t".join(fields) + "\n")
    return path


async def test_secrets_are_nowhere_to_be_read(
    stage: Stage,
    media_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    logs_all: None,
) -> None:
    stage.add_plugin("gallery_dl", "yt_dlp", "twitter", "youtube", "reddit")
    picture = media.image(media_folder)
    with Sites() as web:
        for name, value in web.environment.items():
            monkeypatch.setenv(name, value)
        alive = f"http://boss:{PROXY_PASSWORD}@{web.address}"
        dead = f"http://boss:{DEAD_PROXY_PASSWORD}@127.0.0.1:9"
        monkeypatch.setenv("HTTP_PROXY", alive)
        monkeypatch.setenv("http_proxy", alive)
        x, y = Twitter(web), YouTube(web)
        token = SecretStr(stage.fake.token)
        values: dict[str, Any] = {
            "max_queue_size": 50,
            "plugins": {
                "child_runner": {"allow_private_addresses": True},
                "progress": {"edit_interval_s": 1},
                "twitter": {"auth_token": x.auth_token, "proxy": alive},
                "youtube": {
                    "cookies_file": cookies_txt(
                        tmp_path / "cookies.txt", ".youtube.com"
                    ),
                    "proxy": alive,
                },
                "reddit": {"refresh_token": OPTION_SECRET, "proxy": dead},
            },
        }
        video = media.video(media_folder)
        web.serve(
            "/page", "<title>x</title><video src='/none.mp4'></video>", status=403
        )
        query = f"?token={LINK_TOKEN}&sig=1"
        links = {
            web.serve("/good.jpg", picture) + query: Status.COMPLETED,
            web.url("/missing.jpg") + query: Status.FAILED,
            web.url("/page") + query: Status.FAILED,
            web.serve("/clip", video) + query: Status.COMPLETED,
            web.serve("/text.mp4", "<html>words</html>") + query: Status.FAILED,
            x.tweet("1001", picture): Status.COMPLETED,
            x.refused("1002", "Protected"): Status.FAILED,
            y.video("abcdefghijk", video, video, video): Status.COMPLETED,
            "https://www.reddit.com/r/pics/comments/aa1/x/": Status.FAILED,
        }
        settings = stage.settings(discord_token=token, **values)
        bossbot.set_up_log(settings, True, sys.stdout)
        async with stage.bot(**values) as bot:
            routes = await route_all(bot.app, [*links])
            pairs = zip(routes, links.values(), strict=True)
            wanted = {r.url: s for r, s in pairs if isinstance(r, Route)}
            for link in links:
                await stage.says(f"$download {link}")
            async with asyncio.timeout(60):
                async for _ in bot.app.queue.changes():
                    jobs = await bot.app.queue.list(statuses=TERMINAL_STATUSES)
                    if len(jobs) == len(links):
                        break
            logger.bind(job="x").error("trouble with {}", next(iter(links)))
            try:
                assert values["plugins"] is bot.app.settings, "to be seen"
            except AssertionError:
                logger.exception("with a traceback and its variables")
        asked = [request.cookies for request in web.requests]
    got = {job.url: job.status for job in jobs}
    assert got == wanted, [job.detail for job in jobs]
    assert {"auth_token": x.auth_token}.items() <= {
        pair for cookies in asked for pair in cookies.items()
    }, "the secret was not even used"
    assert COOKIE_IN_FILE in str(asked)

    written = {"console": "".join(capfd.readouterr())}
    for path in (stage.folder / "data").rglob("*"):
        # The queue has the links as they are: they are needed once more.
        if path.is_file() and not path.name.startswith("bossbot.db"):
            written[str(path)] = path.read_bytes().decode("latin-1")
    database = b"".join(p.read_bytes() for p in (stage.folder / "data").glob("*.db*"))
    said = [m for m in stage.fake.all_messages.values() if m.author.bot]
    shown = [(m.content, m.embeds, m.components, m.versions) for m in said]
    written["said"] = json.dumps(shown, default=str)
    assert "with a traceback" in written["console"]
    assert any("metadata.json" in path for path in written)
    assert any("/logs/" in path and "trouble with" in written[path] for path in written)
    secrets = {
        "token": stage.fake.token,
        "named cookie": x.auth_token,
        "cookie of a file": COOKIE_IN_FILE,
        "proxy": PROXY_PASSWORD,
        "dead proxy": DEAD_PROXY_PASSWORD,
        "option": OPTION_SECRET,
    }
    found = [
        f"{name} in {Path(where).name}: {line}"
        for name, secret in {**secrets, "link": LINK_TOKEN}.items()
        for where, text in written.items()
        for line in lines_with(secret, text)
    ]
    assert not found, "\n".join(found)
    assert not [name for name, secret in secrets.items() if secret.encode() in database]


def lines_with(secret: str, text: str) -> list[str]:
    """What is around each place of a secret."""
    places = re.finditer(f".{{0,150}}{re.escape(secret)}.{{0,30}}", text)
    return [place[0] for place in places]


def test_state_is_readable_by_its_owner_alone(bare_home: Home) -> None:
    """What the real engines write, too: see test_odd_folder.py."""
    bare_home.add_plugin(ROOT / "tests" / "core" / "plugins" / "toy.py")
    link, to = "https://a.toy.example/1", bare_home.path / "got"
    done = bare_home.run("--debug", "get", link, "--to", to)
    assert done.returncode == 0, done.stderr
    paths = [bare_home.data, *bare_home.data.rglob("*")]
    folders = {path.name for path in paths if path.is_dir()}
    assert folders >= {"logs", "cache", "temp", "guilds"}
    assert not [path for path in paths if path.stat().st_mode & 0o077]
    [log] = (bare_home.data / "logs").iterdir()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


# Fuzzing

CASES = hypothesis_settings(
    max_examples=int(os.environ.get("HYPOTHESIS_CASES", "100")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
WORDS = """@everyone <@1> <@&2> [a](https://evil) discord.gg/x http:// https:// :// ||
 ` ``` ** __ ~~ > # .. / \\ CON %s %00 %2e ? & : ; @ [ ] ( ) < > { } . - _ ☃ é 漢
 127.0.0.1 [::1] localhost xn-- ① 。 ． 𝟏 ⓛ ｡ #__youtubedl_smuggle ytsearch: 1e9"""
HIDDEN = (
    "\n\r\t\0\x0b\x1b\x7f\x85\xad\u200b\u2028\u202e\u2066\u3000\ufeff \ud800\U000e0041"
)
NASTY = st.sampled_from(WORDS.split()) | st.sampled_from(HIDDEN)
TEXT = st.one_of(
    st.text(st.characters(), max_size=50),
    st.lists(NASTY | st.text(st.characters(), max_size=5), max_size=12).map("".join),
)
URLS = st.one_of(
    TEXT,
    TEXT.map("http://".__add__),
    st.tuples(TEXT, TEXT).map(lambda parts: f"https://{parts[0]}/{parts[1]}"),
    st.tuples(
        st.sampled_from(["http", "HTTPS", "file", "ftp", "ytsearch5", ""]),
        st.sampled_from(
            ["a.example", "127.0.0.1", "[::1]", "①.example", "a..b", "é.fr"]
        ),
        st.one_of(st.none(), st.integers(-9, 99_999)),
        TEXT,
    ).map(lambda p: f"{p[0]}://{p[1]}{'' if p[2] is None else f':{p[2]}'}/{p[3]}"),
)
CONTROL = ("Cc", "Cf", "Cs", "Co", "Cn")


@CASES
@given(URLS)
def test_link_is_refused_or_plain(text: str) -> None:
    try:
        link = check_link(text)
    except Refused as refusal:
        assert 0 < len(str(refusal)) < 200
        return
    parts = urlsplit(link)
    assert parts.scheme in ("http", "https")
    assert parts.hostname and re.fullmatch(r"[a-z0-9_.:-]+", parts.hostname)
    assert parts.username is None and parts.password is None
    assert not re.search(r"[\s\\\x00-\x20\x7f]", link)
    assert len(link) < 4000
    assert check_link(link) == link, "once is enough"
    link.encode()


@CASES
@given(TEXT)
def test_links_are_found_in_any_words(text: str) -> None:
    found = find_links(text)
    assert len(set(found)) == len(found)
    assert all(word and not re.search(r"\s", word) for word in found)
    assert all(word in text for word in found)


@CASES
@given(
    st.text("abcXYZ019-", max_size=11).map("https://a.example/".__add__),
    st.sampled_from(
        ["{}", "<{}>", "({})", "**{}**", "||{}||", "see {}.", "{}, x", "`{}`"]
    ),
)
def test_link_is_found_whatever_is_around_it(link: str, around_it: str) -> None:
    assert link in find_links(around_it.format(link))


@CASES
@given(TEXT, st.integers(1, 100))
def test_name_stays_in_its_folder(text: str, limit: int) -> None:
    name = safe_name(text, limit)
    assert 0 < len(name) <= max(limit, len("media"))
    folder = Path("/data/downloads")
    assert Path(os.path.normpath(folder / name)).parent == folder
    assert name.isascii() and not name.startswith((".", "-", "~"))


@CASES
@given(TEXT, st.integers(1, 300))
def test_text_is_shown_without_any_effect(text: str, limit: int) -> None:
    shown = escape(text, limit)
    assert len(shown) <= 2 * limit, "each character gets a backslash at most"
    bare = re.sub(r"\\.", "", shown)  # without what is escaped
    assert not re.search(r"[*_~`|<>@#\[\]()\\]|discord\.gg", bare)
    assert "://" not in shown, "only what stands together is made a link"
    assert not [char for char in shown if unicodedata.category(char) in CONTROL]
    assert shown == shown.strip() and "\n" not in shown
    shown.encode()


@CASES
@given(TEXT)
def test_line_is_one_line(text: str) -> None:
    line = one_line(text)
    assert line == " ".join(line.split())
    assert not [char for char in line if unicodedata.category(char) in CONTROL]
    assert one_line(line) == line
    line.encode()


SECRET_PLACES = [
    "{}",
    "'token': '{}'",
    "http://me:{}@a.example/",
    "1http://me:{}@a.example/",
    "http://me:p@{}@a.example/",
    "https://a.example/x?a=1&token={}&b=1",
    "https://a.example/x?{}",
    "https://a.example/x?&$sig={}",
    "https://a.example/#access_token={}",
    "https://discord.com/api/v10/interactions/123/{}/callback",
    "https://discord.com/api/v10/webhooks/123/{}/messages/@original",
]


@CASES
@given(
    TEXT,
    st.sampled_from(SECRET_PLACES),
    st.text("ABCabc019._-", min_size=20, max_size=80),
    TEXT,
)
def test_redacted_line_has_no_secret(
    before: str, place: str, secret: str, after: str
) -> None:
    assume(secret not in before + after)
    known = {secret} if place == "{}" else set[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bossbot_contracts, "_secrets", known)
        line = redact(f"{before} {place.format(secret)} {after}")
        assert secret not in line


def up_to(limit: int) -> st.SearchStrategy[str]:
    """Texts of all lengths around a limit of Discord's."""
    lengths = st.integers(0, limit + 9) | st.integers(limit - 1, limit + 1)
    return st.builds(str.__mul__, st.sampled_from(["x", "é", "漢", "😀"]), lengths)


FIELDS = st.builds(
    lambda fields, count: (fields * 10)[:count],
    st.lists(st.tuples(up_to(256), up_to(1024)), max_size=4),
    st.integers(0, 30),
)


@CASES
@given(up_to(256), up_to(4096), up_to(256), up_to(2048), FIELDS)
@example("", "x" * 4096, "", "x" * 1000, [("x" * 256, "x" * 648)])  # 6,000 in all
@example("", "x" * 4096, "", "x" * 1000, [("x" * 256, "x" * 649)])
@example("", "", "", "", [("x", "x")] * 26)
def test_embed_is_clipped_to_what_discord_takes(
    title: str, words: str, author: str, footer: str, fields: list[tuple[str, str]]
) -> None:
    embed = discord.Embed(title=title, description=words, url="https://a.example/")
    embed.set_author(name=author).set_footer(text=footer)
    for name, value in fields:
        embed.add_field(name=name, value=value)
    before = copy.deepcopy(embed.to_dict())
    clipped = clip_embed(embed)
    assert embed.to_dict() == before, "the plugin's own is left alone"
    assert len(clipped) <= 6000 and len(clipped.fields) <= 25
    texts = [(clipped.title, title, 256), (clipped.description, words, 4096)]
    texts += [(clipped.author.name, author, 256), (clipped.footer.text, footer, 2048)]
    for shown, (name, value) in zip(clipped.fields, fields, strict=False):
        texts += [(shown.name, name, 256), (shown.value, value, 1024)]
    for text, whole, limit in texts:
        text = text or ""
        assert len(text) <= limit
        assert text == whole or (text.endswith("…") and whole.startswith(text[:-1]))
        assert bool(text) == bool(whole), "nothing is cut to nothing"
    fits = all(len(whole) <= limit for _, whole, limit in texts)
    if fits and len(fields) <= 25 and len(embed) <= 6000:
        assert clipped.to_dict() == {"fields": [], **before}
    assert clip_embed(clipped).to_dict() == clipped.to_dict(), "once is enough"
