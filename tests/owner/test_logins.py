"""Logins: cookies go only to their site, rotate, and are tried by `check --login`."""

import asyncio
import http.cookiejar
import io
import re
import stat
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import media
import pytest
from bossbot_plugins._cookies import write_cookies
from bossbot_plugins.check import check_logins
from conftest import ROOT, share_runner
from discord_support import Stage, module
from fake_discord import Message
from platform_support import PLATFORMS, Web, listening
from pydantic import SecretStr
from rich.console import Console
from sites import Answer, Content, Request, redirect
from sites_canned.instagram import Instagram
from sites_canned.reddit import Reddit
from sites_canned.twitter import Twitter
from sites_canned.youtube import YouTube

import bossbot
from bossbot import Cause, JobFailed, Platform, Status

pytest_plugins = ("platform_fixtures", "discord_fixtures")
pytestmark = pytest.mark.asyncio(loop_scope="session")
in_discord = pytest.mark.asyncio(loop_scope="function")
both_engines = pytest.mark.parametrize("kind", ["jpg", "mp4"])

LOGIN_SENTENCE = "Ask the bot's owner to add a login"
STALE = "f" * 40
FAR = 4102444800  # the year 2100
OTHERS = f".other.example\tTRUE\t/\tTRUE\t{FAR}\tkept\tas-it-is"


def cookies_txt(path: Path, value: str, domain: str = ".photos.example") -> Path:
    """A browser's export: a comment, the site's session and another site's cookie."""
    session = f"{domain}\tTRUE\t/\tTRUE\t{FAR}\tsession\t{value}"
    header = "# Netscape HTTP Cookie File\n# exported by hand\n"
    path.write_text(f"{header}\n{session}\n{OTHERS}\n", "utf-8")
    path.chmod(0o644)
    return path


def cookies_in(path: Path) -> dict[str, str | None]:
    jar = http.cookiejar.MozillaCookieJar(path)
    jar.load(ignore_discard=True, ignore_expires=True)
    return {cookie.name: cookie.value for cookie in jar}


class Photos:
    """photos.example, which shows files to those who have the cookie `session`; each file is
    fetched by the engine that knows its ending."""

    def __init__(self, web: Web, folder: Path, kind: str) -> None:
        self.web = web
        self.good = ["planted-1", "planted-2"]
        self.headers: dict[str, str] = {}
        self.status = 200
        self.before: Callable[[], object] = lambda: None
        self.file = media.image(folder) if kind == "jpg" else media.video(folder)
        self.engine = "gallery-dl" if kind == "jpg" else "yt-dlp"
        self.link = f"https://photos.example/a.{kind}"
        web.sites.serve(self.link, self.answer)

    def platform(self, cookies_file: Path) -> Platform:
        return Platform(
            name="photos",
            pattern=r"https://photos\.example/",
            example=self.link,
            engine=self.engine,
            cookies_file=cookies_file,
            login_probe=self.link,
        )

    def answer(self, request: Request) -> Answer | Content:
        self.before()
        if request.cookies.get("session") not in self.good:
            return Answer("Log in, please.", 401, self.headers)
        if self.status != 200:
            return Answer("No.", self.status, self.headers)
        return Answer(self.file, headers=self.headers)

    def rotate(self, value: str) -> None:
        age = "Max-Age=9999999"
        text = f"session={value}; Domain=.photos.example; Path=/; Secure; {age}"
        self.headers["Set-Cookie"] = text


# cookies.txt


@both_engines
async def test_rotated_cookie_is_written_back_readable_only_by_its_owner(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    site.rotate("planted-2")
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]
    assert cookies_in(file) == {"session": "planted-2", "kept": "as-it-is"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["cookies.txt"]
    site.good = ["planted-2"]
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]


@both_engines
async def test_changed_file_counts_from_the_next_attempt_on(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "stale")
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.cause is Cause.LOGIN
    cookies_txt(file, "planted-1")
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]


@both_engines
async def test_cookie_rotated_by_a_page_that_fails_is_written_back_too(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    site.rotate("planted-2")
    site.status = 404
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.cause is Cause.GONE
    assert cookies_in(file)["session"] == "planted-2"


@both_engines
async def test_file_that_the_owner_replaces_meanwhile_is_left_alone(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    site.rotate("planted-2")
    site.before = lambda: cookies_txt(file, "a-new-login")
    await web.fetch(site.link, platform=site.platform(file))
    assert cookies_in(file)["session"] == "a-new-login"


@both_engines
async def test_file_whose_cookies_stay_the_same_is_not_touched(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    before = file.read_bytes()
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]
    assert file.read_bytes() == before


@both_engines
async def test_cookie_goes_only_to_its_site_and_to_no_log(
    web: Web, media_folder: Path, tmp_path: Path, kind: str, logged: list[str]
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    elsewhere = web.sites.serve(f"https://cdn.example/b.{kind}", site.file)
    web.sites.serve(site.link, redirect(elsewhere))
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]
    assert web.hosts_with("planted-1") == {"photos.example"}
    assert not web.hosts_with("as-it-is"), "another site's"
    # A link of no platform gets none, be it of the same host.
    await web.fetch(site.link, engine=site.engine)
    assert sum("planted-1" in str(r.headers) for r in web.sites.requests) == 1
    assert not [line for line in logged if "planted-1" in line or "as-it-is" in line]


@pytest.mark.parametrize(
    ("kind", "content"),
    [("jpg", b"\xff\xfe\x00"), ("mp4", b"session=planted-1"), ("jpg", b"")],
)
async def test_file_that_is_no_cookies_txt_is_a_plain_failure(
    web: Web, media_folder: Path, tmp_path: Path, kind: str, content: bytes
) -> None:
    site = Photos(web, media_folder, kind)
    file = tmp_path / "cookies.txt"
    file.write_bytes(content)
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.cause is Cause.LOGIN
    assert file.read_bytes() == content


async def test_file_open_to_others_is_closed_when_the_bot_starts(
    web: Web, tmp_path: Path, logged: list[str]
) -> None:
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    missing = str(tmp_path / "none.txt")
    web.app(twitter={"cookies_file": str(file)}, reddit={"cookies_file": missing})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert logged == [f"WARNING {file} was readable by others: set to 0600"]


async def test_attempts_own_copy_has_the_file_and_the_named_cookies(
    tmp_path: Path,
) -> None:
    platform = Platform(
        name="photos",
        pattern="https://photos",
        example="https://photos.example/",
        engine="gallery-dl",
        cookies={"token": SecretStr("from-env"), "unset": None},
        cookies_domain=".photos.example",
        cookies_file=cookies_txt(tmp_path / "cookies.txt", "planted-1"),
    )
    copy = write_cookies(platform, tmp_path / "home" / "cookies.txt")
    assert copy and stat.S_IMODE(copy.stat().st_mode) == 0o600
    wanted = {"session": "planted-1", "kept": "as-it-is", "token": "from-env"}
    assert cookies_in(copy) == wanted


@pytest.mark.parametrize(
    ("kind", "other"), [("jpg", "cdn.example"), ("mp4", "otherphotos.example")]
)
async def test_other_sites_cookies_stay_out_of_the_file(
    web: Web, media_folder: Path, tmp_path: Path, kind: str, other: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    header = {"Set-Cookie": "tracker=1; Path=/; Max-Age=9999"}
    elsewhere = f"https://{other}/b.{kind}"
    web.sites.serve(elsewhere, Answer(site.file, headers=header))
    site.headers = {**header, "Location": elsewhere}
    web.sites.serve(site.link, lambda request: Answer("", 302, site.headers))
    got = await web.fetch(site.link, platform=site.platform(file))
    assert got.contents == [site.file.read_bytes()]
    text = file.read_text("utf-8")
    assert "photos.example\tFALSE\t/\tFALSE" in text, "its own is kept"
    assert other not in text and "as-it-is" in text


@both_engines
async def test_other_engine_than_the_platforms_gets_no_cookies(
    web: Web, media_folder: Path, tmp_path: Path, kind: str
) -> None:
    site = Photos(web, media_folder, kind)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    other = {"gallery-dl": "yt-dlp", "yt-dlp": "gallery-dl"}[site.engine]
    await web.fetch(site.link, engine=other, platform=site.platform(file))
    assert web.sites.requests
    assert not web.hosts_with("planted-1")


async def test_page_that_a_post_links_to_gets_no_cookies(
    web: Web, media_folder: Path, tmp_path: Path
) -> None:
    reddit, photo = Reddit(web.sites), media.image(media_folder)
    there = web.sites.serve("https://photos.example/a.jpg", photo)
    link = reddit.link("aa1", there)
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1")
    with file.open("a") as more:
        more.write(f".reddit.com\tTRUE\t/\tTRUE\t{FAR}\tname\tplanted-2\n")
    got = await web.fetch(link, reddit={"cookies_file": str(file)})
    assert got.contents == [photo.read_bytes()]
    assert web.hosts_with("planted-2") == {"www.reddit.com"}
    assert not web.hosts_with("planted-1")


async def test_login_that_a_site_refuses_is_left_away_once(
    web: Web, media_folder: Path, logged: list[str]
) -> None:
    twitter, photo = Twitter(web.sites), media.image(media_folder)
    public = twitter.tweet("2002", photo)
    hidden = twitter.refused("2003", "NsfwLoggedOut")
    async with web.running(twitter={"auth_token": STALE}) as app:
        job = await web.finish(public, app)
        assert job.status is Status.COMPLETED and job.attempts == 2
        assert web.kept(job, app) == [photo.read_bytes()]
        job = await web.finish(hidden, app)
        assert (job.cause, job.attempts) == (Cause.LOGIN, 2), "it has failed twice"
    assert sum("twitter refused the login" in line for line in logged) == 2


async def test_named_cookie_stays_out_of_the_file(
    web: Web, media_folder: Path, tmp_path: Path
) -> None:
    file = cookies_txt(tmp_path / "cookies.txt", "planted-1", ".x.com")
    twitter = Twitter(web.sites)
    link = twitter.tweet("2001", media.image(media_folder))
    config = {"auth_token": Twitter.auth_token, "cookies_file": str(file)}
    assert not (await web.fetch(link, twitter=config)).error
    assert Twitter.auth_token not in file.read_text("utf-8")


# check --login


class Accounts:
    """The five sites as they are to a login that works."""

    def __init__(self, web: Web, folder: Path, home: Path) -> None:
        photo = media.image(folder)
        self.twitter = Twitter(web.sites)
        self.twitter.tweet("2101", photo, author="NASA")
        Instagram(web.sites).post("BQ0eAlwhDrw", photo)
        reddit = "https://www.reddit.com/user"
        web.sites.serve(f"{reddit}/me/about.json", self._reddit_user)
        web.sites.serve(f"{reddit}/alice/saved/.json", self._reddit_saved)
        web.sites.serve(f"{reddit}/me/saved/.json", self._reddit_saved)
        web.sites.serve("https://www.reddit.com/login/", "<title>Log in</title>")
        self.youtube = YouTube(web.sites)
        self.youtube.playlist("LL", "aaaaaaaaaa1")
        self.listed = self.youtube._playlist
        web.sites.serve("https://www.youtube.com/playlist", self._youtube_list)
        web.sites.serve("https://www.youtube.com/youtubei/v1/browse", self._browse)
        web.sites.serve("https://www.tiktok.com/", "<title>TikTok</title>")
        stories = "https://www.tiktok.com/api/story/user_list/"
        web.sites.serve(stories, self._tiktok_stories)
        self.file = home / "youtube.txt"

    def settings(self, *, good: bool) -> dict[str, dict[str, str]]:
        """A login for each platform, by plugin."""
        value = "good" if good else STALE
        lines = [
            f".youtube.com\tTRUE\t/\tTRUE\t{FAR}\t{name}\t{value}"
            for name in ("LOGIN_INFO", "SAPISID")
        ]
        header = "# Netscape HTTP Cookie File"
        self.file.write_text("\n".join([header, *lines, ""]), "utf-8")
        return {
            "twitter": {"auth_token": Twitter.auth_token if good else STALE},
            "reddit": {"reddit_session": value},
            "instagram": {"sessionid": Instagram.session_id if good else STALE},
            "tiktok": {"sessionid": value},
            "youtube": {"cookies_file": str(self.file)},
        }

    def _reddit_user(self, request: Request) -> Answer | Content:
        known = request.cookies.get("reddit_session") == "good"
        return {"data": {"id": "1", "name": "alice" if known else "me"}}

    def _reddit_saved(self, request: Request) -> Answer | Content:
        if request.cookies.get("reddit_session") != "good":
            return Answer({"message": "Forbidden", "error": 403}, 403)
        return {"kind": "Listing", "data": {"children": [], "after": None}}

    def _youtube_list(self, request: Request) -> Answer | Content:
        known = request.cookies.get("LOGIN_INFO") == "good"
        other = request.url.replace("list=LL", "list=LLnone")
        asked = request if known else Request("GET", other, request.headers)
        return self.youtube._playlist(asked)

    def _browse(self, request: Request) -> Answer | Content:
        known = request.cookies.get("LOGIN_INFO") == "good"
        body = request.body if known else request.body.replace(b"LL", b"LLnone")
        return self.youtube._browse(Request("POST", request.url, {}, body))

    def _tiktok_stories(self, request: Request) -> Content:
        if request.cookies.get("sessionid") != "good":
            return {"statusCode": 8}
        return {"storyUsers": [], "MinCursor": 0, "MaxCursor": 0, "HasMore": False}


async def check(web: Web, **config: dict[str, str]) -> tuple[int, list[str]]:
    """The exit code and the lines of ``check --login``, in this process."""
    app = web.app(**config)
    said = io.StringIO()
    console = Console(file=said, highlight=False, markup=False, soft_wrap=True)
    code = await check_logins(app, console)
    assert not list((app.settings.data_dir / "temp").iterdir())
    return code, said.getvalue().splitlines()


async def test_check_says_that_logins_are_alive(
    web: Web, media_folder: Path, tmp_path: Path
) -> None:
    accounts = Accounts(web, media_folder, tmp_path)
    code, lines = await check(web, **accounts.settings(good=True))
    assert lines == [f"alive    {name}" for name in sorted(PLATFORMS)]
    assert code == 0
    assert not web.sites.unknown


async def test_check_says_which_logins_are_dead(
    web: Web, media_folder: Path, tmp_path: Path, logged: list[str]
) -> None:
    accounts = Accounts(web, media_folder, tmp_path)
    code, lines = await check(web, **accounts.settings(good=False))
    states = [line.partition(":")[0] for line in lines if line[0] != " "]
    assert states == [f"dead     {name}" for name in sorted(PLATFORMS)], lines
    assert code == 1
    assert "[plugins.twitter]" in "".join(lines)
    assert STALE not in "".join(lines + logged)


async def test_check_cannot_tell_when_the_site_is_out_of_reach(
    web: Web, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no-such.txt")
    code, lines = await check(
        web,
        twitter={"auth_token": STALE},
        instagram={"cookies_file": missing},
    )
    instagram, remedy, twitter = lines
    assert instagram == f"dead     instagram: {missing} is missing"
    assert "[plugins.instagram]" in remedy
    assert twitter.startswith("unknown  twitter: The site could not be reached.")
    assert code == 1


async def test_check_without_any_cookies_says_so(web: Web) -> None:
    code, lines = await check(web)
    assert code == 0 and "no platform has cookies" in lines[0]
    assert not web.sites.requests


async def test_failure_for_want_of_a_login_says_so_to_the_member() -> None:
    for cause in (Cause.LOGIN, Cause.AGE):
        assert LOGIN_SENTENCE in str(JobFailed(cause))


async def test_examples_in_config_toml_are_settings_that_exist(web: Web) -> None:
    text = (ROOT / "config.toml").read_text("utf-8")
    examples = re.findall(r"^# (\[plugins\.\w+\]\n(?:# .+\n)+)", text, re.MULTILINE)
    tables = tomllib.loads("".join(examples).replace("\n# ", "\n"))["plugins"]
    assert sorted(tables) == sorted(PLATFORMS)
    web.app(**tables)  # checks that no plugin is off


async def test_environment_sets_cookies_that_look_like_numbers_and_lists(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BOSS_BOT_PLUGINS__TIKTOK__SESSIONID", "1234567890")
    monkeypatch.setenv("BOSS_BOT_PLUGINS__TIKTOK__MUSIC", "false")
    monkeypatch.setenv("BOSS_BOT_PLUGINS__YOUTUBE__PLAYER_CLIENTS", '["tv", "web"]')
    settings = bossbot.load_settings(root=tmp_path)
    app = web.app(**settings.plugins)
    platforms = app.plugins.registered("platforms")
    tiktok, youtube = platforms["tiktok"], platforms["youtube"]
    assert tiktok.cookies["sessionid"].get_secret_value() == "1234567890"
    assert tiktok.options["extractor.tiktok.audio"] is False
    clients = {"youtube": {"player_client": ["tv", "web"]}}
    assert youtube.options["extractor_args"] == clients


# The owner's notice


def notices(stage: Stage) -> list[Message]:
    return stage.said(stage.fake.open_dm(stage.fake.owner.id).id)


def with_notices(stage: Stage, web: Web) -> None:
    """A bot with the children of the sites, which see nothing else."""
    lend: Any = SimpleNamespace(
        lend_to=lambda runner: share_runner(runner.app, web.runner.app)
    )
    stage.server = lend
    for name in (*PLATFORMS, "gallery_dl", "yt_dlp", "problems"):
        stage.add_plugin(name)


@in_discord
async def test_owner_is_told_once_a_day_and_site(
    stage: Stage, web: Web, media_folder: Path
) -> None:
    with_notices(stage, web)
    photo = media.image(media_folder)
    instagram, twitter = Instagram(web.sites), Twitter(web.sites)
    links = [instagram.post(f"Cabe{n}", photo) for n in (1, 2)]
    links += [twitter.refused("2201", "NsfwLoggedOut"), twitter.gone("2202")]
    async with stage.bot() as bot:
        for link in links:
            asked = await stage.says(f"$download {link}")
            await stage.hears("Download failed", after=asked.id)
        found = await stage.fake.wait_for(
            lambda: said if len(said := notices(stage)) == 2 else None
        )
        assert "A link to instagram failed" in found[0].content
        assert "HTTP redirect to login page" in found[0].content
        assert "check --login" in found[0].content
        assert "A link to twitter failed" in found[1].content
        # A day later it is said again.
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        await bot.app.facts.set("problem:login:instagram", yesterday)
        module("problems")._noted.clear()
        await stage.says(f"$download {links[0]}")
        await stage.fake.wait_for(lambda: len(notices(stage)) == 3)
    assert "mary" not in "".join(notice.content for notice in notices(stage))
    assert str(stage.fake.member.id) not in "".join(n.content for n in notices(stage))


@in_discord
async def test_owner_who_takes_no_messages_is_only_logged(
    stage: Stage, web: Web, media_folder: Path, logged: list[str]
) -> None:
    with_notices(stage, web)
    stage.fake.owner.accepts_dms = False
    link = Instagram(web.sites).post("Cabe3", media.image(media_folder))
    with listening("reached the owner") as heard:
        async with stage.bot(), asyncio.timeout(60):
            await stage.says(f"$download {link}")
            await stage.hears("Download failed", LOGIN_SENTENCE)
            await heard.wait()
    assert not any("is switched off" in line for line in logged)
