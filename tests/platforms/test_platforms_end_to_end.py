"""Every platform from the link to the files: the real engines in the real children ask
canned sites, and what arrives is the same bytes in the same order."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import media
import pytest
from conftest import Home
from discord_support import Stage
from platform_support import PLATFORMS, Got, Web, environment
from sites import Answer
from sites_canned.instagram import Instagram
from sites_canned.reddit import BLOCKED, BLOCKED_2025, Reddit
from sites_canned.tiktok import (
    GONE,
    NOT_HERE,
    PRIVATE_ACCOUNT,
    PRIVATE_POST,
    TikTok,
)
from sites_canned.twitter import Twitter
from sites_canned.youtube import YouTube

from bossbot import SENTENCES, Cause

pytest_plugins = ("platform_fixtures", "discord_fixtures")
pytestmark = pytest.mark.asyncio(loop_scope="session")

LOGGED_IN = {"auth_token": Twitter.auth_token}
NEXT_STEP = "Ask the bot's owner to add a login"


@pytest.fixture
def photos(media_folder: Path) -> Callable[[int], list[Path]]:
    return lambda count: [media.image(media_folder, n) for n in range(1, count + 1)]


@pytest.fixture
def video(media_folder: Path) -> Path:
    return media.video(media_folder)


@pytest.fixture
def picture(media_folder: Path) -> Path:
    return media.video(media_folder, sound=False)


@pytest.fixture
def sound(media_folder: Path) -> Path:
    return media.video(media_folder, picture=False)


Photos = Callable[[int], list[Path]]


def same(got: Got, *files: Path) -> bool:
    """Whether these files came, byte for byte, in this order, and nothing failed."""
    if got.error:
        raise AssertionError(f"{got.error.cause}: {got.error.detail}")
    return got.contents == [file.read_bytes() for file in files] and not got.lost


def has_both(got: Got, folder: Path) -> bool:
    """Whether one file came, with pictures and sound."""
    if got.error:
        raise AssertionError(f"{got.error.cause}: {got.error.detail}")
    [content] = got.contents
    file = folder / "probed"
    file.write_bytes(content)
    return [*media.facts(file).codecs] == ["video", "audio"]


# Twitter


async def test_four_photos_of_a_tweet(web: Web, photos: Photos) -> None:
    link = Twitter(web.sites).tweet("1001", *photos(4), text="Four <of> them")
    for pasted in (link, link.replace("x.com", "fxtwitter.com") + "/photo/2"):
        got = await web.fetch(pasted)
        assert same(got, *photos(4))
        assert got.text == "Four <of> them"
    assert not web.sites.unknown


async def test_video_of_a_tweet_in_its_best_quality(web: Web, video: Path) -> None:
    assert same(await web.fetch(Twitter(web.sites).tweet("1002", video)), video)


async def test_gif_of_a_tweet(web: Web, picture: Path) -> None:
    link = Twitter(web.sites).tweet("1003", picture, gif=True)
    assert same(await web.fetch(link), picture)


async def test_mixed_tweet_keeps_its_order(
    web: Web, photos: Photos, video: Path
) -> None:
    files = [photos(1)[0], video, photos(2)[1]]
    assert same(await web.fetch(Twitter(web.sites).tweet("1004", *files)), *files)


async def test_tweet_of_words_alone_is_its_words(web: Web) -> None:
    got = await web.fetch(Twitter(web.sites).tweet("1005", text="Only words here."))
    assert (got.error, got.contents, got.text) == (None, [], "Only words here.")


async def test_quoted_tweet_comes_by_setting(web: Web, photos: Photos) -> None:
    first, second = photos(2)
    twitter = Twitter(web.sites)
    twitter.tweet("1006", first, author="bob")
    link = twitter.tweet("1007", second, quotes="1006")
    assert same(await web.fetch(link), second)
    got = await web.fetch(link, twitter={"quoted": True})
    assert sorted(got.contents) == sorted(p.read_bytes() for p in photos(2))


async def test_thread_comes_by_setting_with_a_login(web: Web, photos: Photos) -> None:
    one, two, three, answer = photos(4)
    twitter = Twitter(web.sites)
    link = twitter.thread("1010", [one], [two], [three])
    twitter.tweet("1013", answer, author="bob", replies_to="1010")
    assert same(await web.fetch(link, twitter={"thread": True}), one)
    got = await web.fetch(link, twitter={"thread": True, **LOGGED_IN})
    assert same(got, one, two, three)
    asked = {"options": {"thread": True}}
    assert same(await web.fetch(link, job=asked), one)
    got = await web.fetch(link, job=asked, twitter=LOGGED_IN)
    assert same(got, one, two, three)
    assert same(await web.fetch(link, twitter=LOGGED_IN), one)


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("", Cause.GONE),
        ("Suspended", Cause.GONE),
        ("Protected", Cause.PRIVATE),
        ("NsfwLoggedOut", Cause.AGE),
    ],
)
async def test_tweet_that_guests_do_not_see(
    web: Web, reason: str, cause: Cause
) -> None:
    twitter = Twitter(web.sites)
    link = twitter.refused("1020", reason) if reason else twitter.gone("1020")
    got = await web.fetch(link)
    assert got.cause is cause
    assert str(got.error) == SENTENCES[cause]


async def test_age_restricted_tweet_opens_with_the_login(web: Web, video: Path) -> None:
    twitter = Twitter(web.sites)
    link = twitter.tweet("1021", video)
    twitter.refused("1021", "NsfwLoggedOut")
    assert (await web.fetch(link)).cause is Cause.AGE
    assert same(await web.fetch(link, twitter=LOGGED_IN), video)
    assert web.hosts_with(Twitter.auth_token) == {"x.com"}


async def test_stale_cookie_of_twitter_wants_a_new_login(
    web: Web, photos: Photos
) -> None:
    twitter = Twitter(web.sites)
    twitter.tweet("1022", *photos(1))
    got = await web.fetch(twitter.profile(), twitter={"auth_token": "f" * 40})
    assert got.cause is Cause.LOGIN
    assert NEXT_STEP in str(got.error)


async def test_rate_limit_of_twitter_says_when_to_try_again(web: Web) -> None:
    got = await web.fetch(Twitter(web.sites).limited("1023", reset_in_s=630))
    assert got.cause is Cause.RATE_LIMITED
    assert got.error and got.error.retry_after_s
    assert 600 < got.error.retry_after_s < 640
    assert "10 min" in str(got.error)


async def test_media_timeline_is_capped(web: Web, photos: Photos) -> None:
    twitter = Twitter(web.sites)
    files = photos(12)
    for number, file in enumerate(files):
        twitter.tweet(f"10{30 + number}", file)
    got = await web.fetch(twitter.profile(), twitter=LOGGED_IN, max_items=5)
    assert same(got, *reversed(files[-5:]))
    assert got.facts["more"]
    fetched = [url for url in web.sites.hits if url.startswith("pbs.twimg.com")]
    assert len(fetched) == 5


async def test_protected_profile_is_private(web: Web) -> None:
    link = Twitter(web.sites).profile("carol", protected=True)
    assert (await web.fetch(link, twitter=LOGGED_IN)).cause is Cause.PRIVATE


async def test_one_dead_photo_does_not_lose_the_others(
    web: Web, photos: Photos
) -> None:
    link = Twitter(web.sites).tweet("1050", *photos(4))
    web.sites.serve("https://pbs.twimg.com/media/F1050_2", Answer(status=404))
    got = await web.fetch(link)
    assert got.contents == [photos(4)[n].read_bytes() for n in (0, 2, 3)]
    assert [lost.cause for lost in got.lost] == [Cause.GONE]


# Reddit


async def test_picture_of_a_reddit_post(web: Web, photos: Photos) -> None:
    link = Reddit(web.sites).image("aa1", *photos(1))
    for pasted in (link, "https://redd.it/aa1", "https://old.reddit.com/comments/aa1/"):
        assert same(await web.fetch(pasted), *photos(1))
    assert not web.sites.unknown


@pytest.mark.parametrize("count", [3, 12])
async def test_reddit_gallery_keeps_its_order(
    web: Web, photos: Photos, count: int
) -> None:
    link = Reddit(web.sites).gallery("aa2", *photos(count))
    assert same(await web.fetch(link), *photos(count))


async def test_reddit_gallery_is_capped_and_says_how_many_there_are(
    web: Web, photos: Photos
) -> None:
    link = Reddit(web.sites).gallery("aa0", *photos(12))
    got = await web.fetch(link, max_items=5)
    assert same(got, *photos(5))
    assert (got.facts["items"], got.facts["more"]) == (12, True)
    assert sum(url.startswith("i.redd.it") for url in web.sites.hits) == 5


async def test_reddit_gallery_with_dead_items_brings_the_others(
    web: Web, photos: Photos
) -> None:
    got = await web.fetch(Reddit(web.sites).gallery("aa3", *photos(12), missing=1))
    assert got.contents == [photo.read_bytes() for photo in photos(12)[1:]]
    assert len(got.lost) == 1


@pytest.mark.parametrize("form", ["post", "v.redd.it"])
async def test_reddit_video_arrives_with_its_sound(
    web: Web, picture: Path, sound: Path, form: str, tmp_path: Path
) -> None:
    link = Reddit(web.sites).video("aa4", picture, sound)
    got = await web.fetch(link if form == "post" else "https://v.redd.it/aa4")
    assert has_both(got, tmp_path)
    assert not web.sites.unknown


async def test_reddit_video_without_ffmpeg_is_its_picture(
    web: Web, picture: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Reddit(web.sites).video("aa5", picture, sound)
    monkeypatch.delitem(web.runner.programs, "ffmpeg")
    monkeypatch.delitem(web.runner.programs, "ffprobe")
    for pasted in (link, "https://v.redd.it/aa5"):
        assert same(await web.fetch(pasted), picture)


async def test_self_post_is_its_words(web: Web) -> None:
    html = "<p>Only <b>words</b> &amp; more.</p>"
    got = await web.fetch(Reddit(web.sites).text("aa6", html))
    assert (got.error, got.contents, got.text) == (None, [], "Only words & more.")


async def test_crosspost_is_the_original(
    web: Web, photos: Photos, picture: Path
) -> None:
    reddit = Reddit(web.sites)
    reddit.gallery("aa7", *photos(3))
    assert same(await web.fetch(reddit.crosspost("aa8", of="aa7")), *photos(3))
    reddit.video("aa9", picture)
    assert same(await web.fetch(reddit.crosspost("ab0", of="aa9")), picture)


async def test_link_post_is_followed(web: Web, photos: Photos) -> None:
    url = web.sites.serve("https://photos.example/a.jpg", photos(1)[0])
    assert same(await web.fetch(Reddit(web.sites).link("ab1", url)), *photos(1))
    tweet = Twitter(web.sites).tweet("1060", *photos(2))
    assert same(await web.fetch(Reddit(web.sites).link("ab2", tweet)), *photos(2))


async def test_link_post_to_an_unknown_page_says_where_it_leads(web: Web) -> None:
    url = web.sites.serve("https://news.example/story", "<p>words</p>")
    got = await web.fetch(Reddit(web.sites).link("ab3", url))
    assert got.cause is Cause.UNSUPPORTED
    assert got.error and url in got.error.detail
    assert web.sites.hits["news.example/story"] == 0


@pytest.mark.parametrize("by", ["moderator", "deleted"])
async def test_removed_post_is_gone(web: Web, by: str) -> None:
    got = await web.fetch(Reddit(web.sites).removed("ab4", by))
    assert got.cause is Cause.GONE


@pytest.mark.parametrize(("status", "cause"), [(403, Cause.PRIVATE), (404, Cause.GONE)])
async def test_refused_reddit_post(web: Web, status: int, cause: Cause) -> None:
    got = await web.fetch(Reddit(web.sites).refused("ab5", status))
    assert got.cause is cause
    assert str(got.error) == SENTENCES[cause]


@pytest.mark.parametrize("page", [BLOCKED, BLOCKED_2025])
async def test_blocked_address_opens_with_a_cookie(
    web: Web, photos: Photos, page: str
) -> None:
    reddit = Reddit(web.sites)
    reddit.blocks_guests, reddit.block_page = True, page
    link = reddit.image("ab6", *photos(1))
    got = await web.fetch(link)
    assert got.cause is Cause.LOGIN
    assert NEXT_STEP in str(got.error)
    cookie = {"reddit_session": "planted"}
    assert same(await web.fetch(link, reddit=cookie), *photos(1))
    assert web.hosts_with("planted") == {"www.reddit.com"}


async def test_reddit_app_is_used(web: Web, photos: Photos) -> None:
    reddit = Reddit(web.sites)
    reddit.blocks_guests = True
    link = reddit.image("ab7", *photos(1))
    got = await web.fetch(link, reddit={"client_id": "canned-app-id"})
    assert same(got, *photos(1))
    assert web.sites.hits["oauth.reddit.com/comments/ab7/.json"] == 1


async def test_rate_limit_of_reddit(web: Web) -> None:
    reddit = Reddit(web.sites)
    reddit.limited = True
    got = await web.fetch(reddit.text("ab8"))
    assert got.cause is Cause.RATE_LIMITED
    assert got.error and got.error.retry_after_s == pytest.approx(600, abs=5)


async def test_share_link_of_reddit(web: Web, photos: Photos) -> None:
    reddit = Reddit(web.sites)
    reddit.gallery("ab9", *photos(3))
    got = await web.fetch(reddit.share("ab9"))
    assert same(got, *photos(3))
    assert got.facts["leads_to"] == "https://www.reddit.com/comments/ab9"


async def test_subreddit_is_capped(web: Web, photos: Photos) -> None:
    reddit = Reddit(web.sites)
    files = photos(8)
    for number, file in enumerate(files):
        reddit.image(f"ac{number}", file)
    got = await web.fetch(reddit.subreddit(), max_items=3)
    assert same(got, *reversed(files[-3:]))
    assert got.facts["more"]
    assert sum(url.startswith("i.redd.it") for url in web.sites.hits) == 3


# Instagram

WITH_SESSION = {"sessionid": Instagram.session_id}


async def test_mixed_carousel_keeps_its_order(
    web: Web, photos: Photos, video: Path
) -> None:
    files = [photos(1)[0], video, *photos(3)[1:]]
    link = Instagram(web.sites).post("Cabc1", *files)
    got = await web.fetch(f"{link}?img_index=2", instagram=WITH_SESSION)
    assert same(got, *files)
    assert web.hosts_with(Instagram.session_id) == {"www.instagram.com"}
    assert not web.sites.unknown


async def test_reel_arrives_with_its_sound(
    web: Web, video: Path, picture: Path, sound: Path, tmp_path: Path
) -> None:
    instagram = Instagram(web.sites)
    link = instagram.reel("Cabc2", video)
    assert same(await web.fetch(link, instagram=WITH_SESSION), video)
    link = instagram.reel("Cabc3", video, picture, sound)
    got = await web.fetch(link.replace("/reel/", "/reels/"), instagram=WITH_SESSION)
    assert has_both(got, tmp_path)


async def test_share_link_of_instagram(web: Web, video: Path) -> None:
    instagram = Instagram(web.sites)
    instagram.reel("Cabc4", video)
    got = await web.fetch(instagram.share("Cabc4"), instagram=WITH_SESSION)
    assert same(got, video)
    assert got.facts["leads_to"] == "https://www.instagram.com/reel/Cabc4/"


async def test_instagram_wants_a_login(web: Web, photos: Photos) -> None:
    link = Instagram(web.sites).post("Cabc5", *photos(1))
    for config in ({}, {"sessionid": "stale"}):
        got = await web.fetch(link, instagram=config)
        assert got.cause is Cause.LOGIN
        assert NEXT_STEP in str(got.error)


async def test_instagram_post_that_is_not_shown(web: Web, photos: Photos) -> None:
    instagram = Instagram(web.sites)
    for link, cause in [
        (instagram.gone("Cabc6"), Cause.GONE),
        (instagram.private("Cabc7"), Cause.PRIVATE),
    ]:
        assert (await web.fetch(link, instagram=WITH_SESSION)).cause is cause
    link = instagram.post("Cabc8", *photos(1))
    instagram.limited = True
    got = await web.fetch(link, instagram=WITH_SESSION)
    assert got.cause is Cause.RATE_LIMITED


# TikTok

NUMBER = "7100000000000000001"


async def test_tiktok_video(web: Web, video: Path) -> None:
    tiktok = TikTok(web.sites)
    link = tiktok.video(NUMBER, video)
    for pasted in (link, link.replace("tiktok", "vxtiktok"), tiktok.short(NUMBER)):
        got = await web.fetch(pasted)
        assert same(got, video)
    assert got.facts["leads_to"] == link
    assert not web.sites.unknown


async def test_tiktok_slideshow_keeps_its_order(
    web: Web, photos: Photos, media_folder: Path
) -> None:
    music = media.audio(media_folder)
    link = TikTok(web.sites).photos(NUMBER, *photos(4), music=music)
    assert same(await web.fetch(link), *photos(4), music)
    assert same(await web.fetch(link, tiktok={"music": False}), *photos(4))


async def test_slideshow_behind_a_short_link_falls_back_to_the_other_engine(
    web: Web, photos: Photos
) -> None:
    tiktok = TikTok(web.sites)
    tiktok.photos(NUMBER, *photos(3))
    async with web.running() as app:
        job = await web.finish(tiktok.short(NUMBER), app)
        assert (job.status, job.detail) == ("completed", "")
        assert (job.engine, job.attempts) == ("gallery-dl", 2)
        assert job.facts["leads_to"] == f"https://www.tiktok.com/@alice/photo/{NUMBER}"
        assert web.kept(job, app) == [photo.read_bytes() for photo in photos(3)]


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (GONE, Cause.GONE),
        (PRIVATE_POST, Cause.PRIVATE),
        (PRIVATE_ACCOUNT, Cause.PRIVATE),
        (NOT_HERE, Cause.REGION),
    ],
)
@pytest.mark.parametrize("kind", ["video", "photo"])
async def test_refused_tiktok_post(
    web: Web, status: int, cause: Cause, kind: str
) -> None:
    link = TikTok(web.sites).refused(NUMBER, status)
    assert (await web.fetch(link.replace("/video/", f"/{kind}/"))).cause is cause


@pytest.mark.parametrize("kind", ["video", "photo"])
async def test_login_wall_of_tiktok(web: Web, kind: str) -> None:
    link = TikTok(web.sites).login_wall(NUMBER)
    got = await web.fetch(link.replace("/video/", f"/{kind}/"))
    assert got.cause is Cause.LOGIN


@pytest.mark.parametrize("kind", ["video", "photo"])
async def test_tiktok_asks_to_slow_down(web: Web, kind: str) -> None:
    refusal = Answer(status=429, headers={"Retry-After": "630"})
    link = TikTok(web.sites).login_wall(NUMBER)
    web.sites.serve(link, refusal)
    got = await web.fetch(link.replace("/video/", f"/{kind}/"))
    assert got.cause is Cause.RATE_LIMITED


# YouTube

VIDEO_ID = "aaaaaaaaaa1"


class Counted(YouTube):
    """YouTube as it says beside a playlist how many videos there are."""

    def _listed(self, playlist_id: str) -> dict[str, Any]:
        stats = [{"runs": [{"text": str(len(self._playlists[playlist_id]))}]}]
        beside = {"playlistSidebarPrimaryInfoRenderer": {"stats": stats}}
        sidebar = {"playlistSidebarRenderer": {"items": [beside]}}
        return {**super()._listed(playlist_id), "sidebar": sidebar}


@pytest.mark.parametrize(
    "form",
    [
        "https://youtu.be/{}?si=tracking",
        "https://www.youtube.com/shorts/{}",
        "https://m.youtube.com/watch?v={}&list=PLcanned&index=2",
        "https://music.youtube.com/watch?v={}",
    ],
)
async def test_youtube_video_of_one_file(web: Web, video: Path, form: str) -> None:
    youtube = YouTube(web.sites)
    youtube.video(VIDEO_ID, video)
    youtube.playlist("PLcanned", "aaaaaaaaaa9", VIDEO_ID)
    for host in ("music.youtube.com",):  # the same pages under another name
        web.sites.serve(f"https://{host}/watch", youtube._watch)
        web.sites.serve(f"https://{host}/youtubei/v1/player", youtube._player)
    got = await web.fetch(form.format(VIDEO_ID))
    assert same(got, video)
    assert (got.facts["title"], got.text) == (f"Video {VIDEO_ID}", "words")
    assert not web.sites.unknown


async def test_streams_of_youtube_are_joined(
    web: Web, video: Path, picture: Path, sound: Path, tmp_path: Path
) -> None:
    link = YouTube(web.sites).video(VIDEO_ID, video, picture, sound)
    got = await web.fetch(link)
    assert has_both(got, tmp_path)
    assert got.contents != [video.read_bytes()]


async def test_youtube_without_ffmpeg_is_the_file_with_both(
    web: Web,
    video: Path,
    picture: Path,
    sound: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = YouTube(web.sites).video(VIDEO_ID, video, picture, sound)
    monkeypatch.delitem(web.runner.programs, "ffmpeg")
    assert same(await web.fetch(link), video)


async def test_subtitles_are_kept_and_sound_has_its_cover(
    web: Web, video: Path, sound: Path, photos: Photos, tmp_path: Path
) -> None:
    youtube = YouTube(web.sites)
    link = youtube.video(VIDEO_ID, video, sound=sound)
    youtube.add_subtitles(VIDEO_ID, de="die Worte", en="the words")
    web.sites.serve("https://i.ytimg.com/*", photos(1)[0])
    async with web.running() as app:
        job = await web.finish(link, app)
        assert web.kept(job, app) == [video.read_bytes()]
        [beside] = await app.storage.beside(job)
        assert beside.name == "0001.en.srt"
        assert "the words" in beside.path.read_text()
        job = await web.finish(link, app, quality="audio")
        [heard] = web.kept(job, app)
        assert (b"covr" in heard, f"Video {VIDEO_ID}".encode() in heard) == (True, True)


async def test_playlist_is_capped_and_keeps_its_order(
    web: Web, media_folder: Path
) -> None:
    youtube = Counted(web.sites)
    files = [media.video(media_folder, number) for number in range(1, 5)]
    ids = [f"aaaaaaaaa{n}1" for n in range(1, 5)]
    for video_id, file in zip(ids, files, strict=True):
        youtube.video(video_id, file)
    link = youtube.playlist("PLcanned", *ids)
    got = await web.fetch(link, max_items=3)
    assert same(got, *files[:3])
    assert (got.facts["title"], got.facts["more"]) == ("A playlist", True)
    assert got.facts["items"] == 4
    assert web.sites.hits["www.youtube.com/watch"] == 3


async def test_dead_video_does_not_lose_the_playlist(
    web: Web, media_folder: Path
) -> None:
    youtube = YouTube(web.sites)
    first, third = (media.video(media_folder, number) for number in (1, 2))
    youtube.video("aaaaaaaaa11", first)
    youtube.refused("aaaaaaaaa21", "private")
    youtube.video("aaaaaaaaa31", third)
    link = youtube.playlist("PLcanned", "aaaaaaaaa11", "aaaaaaaaa21", "aaaaaaaaa31")
    got = await web.fetch(link)
    assert got.contents == [first.read_bytes(), third.read_bytes()]
    assert [lost.cause for lost in got.lost] == [Cause.PRIVATE]


async def test_youtube_videos_that_do_not_play(web: Web, video: Path) -> None:
    causes = {
        "private": Cause.PRIVATE,
        "age": Cause.AGE,
        "bot": Cause.LOGIN,
        "removed": Cause.GONE,
        "unavailable": Cause.GONE,
        "members": Cause.PRIVATE,
        "region": Cause.REGION,
        "limited": Cause.RATE_LIMITED,
        "upcoming": Cause.NO_MEDIA,
    }
    youtube = YouTube(web.sites)
    ids = [f"aaaaaaaaa{number}2" for number in range(len(causes))]
    for video_id, why in zip(ids, causes, strict=True):
        youtube.refused(video_id, why)
    youtube.video(VIDEO_ID, video)
    got = await web.fetch(youtube.playlist("PLcanned", *ids, VIDEO_ID))
    lost = dict(zip(causes, got.lost, strict=True))
    assert {why: failure.cause for why, failure in lost.items()} == causes
    assert all(str(failure) == SENTENCES[failure.cause] for failure in got.lost)
    assert got.contents == [video.read_bytes()]


async def test_broadcast_on_the_air_is_refused(web: Web) -> None:
    got = await web.fetch(YouTube(web.sites).live(VIDEO_ID))
    assert got.cause is Cause.UNSUPPORTED
    assert "when it has ended" in str(got.error)
    assert not any("segment" in url for url in web.sites.hits)


# Direct files


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "webp", "mp4", "webm", "mp3"])
async def test_direct_file(web: Web, media_folder: Path, kind: str) -> None:
    makers: dict[str, Callable[..., Path]] = {"mp4": media.video, "webm": media.video}
    makers["mp3"] = media.audio
    file = makers.get(kind, media.image)(media_folder, kind=kind)
    link = web.sites.serve(f"https://files.example/some/a.{kind}", file)
    assert same(await web.fetch(f"{link}?width=1"), file)


# Through the command line


async def test_get_saves_from_several_sites_and_says_which_failed(
    home: Home, web: Web, photos: Photos, video: Path
) -> None:
    """``python bossbot.py --debug get --to saved LINK...``, with a login in ``.env``."""
    secret = Instagram.session_id
    home.path.joinpath(".env").write_text(
        f"BOSS_BOT_PLUGINS__INSTAGRAM__SESSIONID={secret}\n", "utf-8"
    )
    twitter, tiktok = Twitter(web.sites), TikTok(web.sites)
    tiktok.photos(NUMBER, *photos(4))
    carousel = [photos(1)[0], video]
    links = {  # and what is saved of each
        web.sites.serve("https://files.example/a.mp4", video): [video],
        twitter.tweet("1101", *photos(3)): photos(3),
        tiktok.short(NUMBER): photos(4),  # which the other engine knows
        Instagram(web.sites).post("Cabd1", *carousel): carousel,
    }
    gone, words = twitter.gone("1102"), twitter.tweet("1103", text="Only words here.")
    asked = ("--debug", "get", "--to", "saved", gone, words, *links)
    done = await asyncio.to_thread(home.run, *asked, env=web.sites.environment)
    assert done.returncode == 1
    [failed] = [line for line in done.stderr.splitlines() if line.startswith("http")]
    assert failed.startswith(f"{gone} {SENTENCES[Cause.GONE]}")
    assert "Only words here." in done.stdout, done.stdout + done.stderr
    saved: dict[str, list[bytes]] = {}
    for path in sorted((home.path / "saved").iterdir()):  # a number ends each name
        saved.setdefault(path.stem.rpartition("_")[0], []).append(path.read_bytes())
    for link, files in links.items():
        assert [file.read_bytes() for file in files] in saved.values(), link
    assert len(saved) == len(links)
    logs = "".join(p.read_text("utf-8") for p in (home.data / "logs").iterdir())
    assert secret not in done.stdout + done.stderr + logs


# Through Discord

in_discord = pytest.mark.asyncio(loop_scope="function")


def open_to(stage: Stage, *more: str) -> None:
    """Give the bot the platforms and the engines."""
    for name in (*PLATFORMS, "gallery_dl", "yt_dlp", *more):
        stage.add_plugin(name)


@in_discord
async def test_posts_of_every_kind_arrive_in_discord(
    stage: Stage, web: Web, photos: Photos, video: Path, picture: Path, sound: Path
) -> None:
    open_to(stage, "already_here")
    twitter, youtube = Twitter(web.sites), YouTube(web.sites)
    reddit, tiktok = Reddit(web.sites), TikTok(web.sites)
    direct = web.sites.serve("https://files.example/a.png", photos(1)[0])
    links = {
        twitter.tweet("1201", *photos(4), text="Four photos", alt="A *cat*"): photos(4),
        reddit.gallery("ae1", *photos(12), caption="The last"): photos(12),
        youtube.video(VIDEO_ID, video): [video],
        direct: photos(1),
        tiktok.video(NUMBER, video): [video],
    }
    posted = 0
    with environment(**web.sites.environment):
        async with stage.bot():
            for link, files in links.items():
                await stage.says(f"$download {link}")
                await stage.gets(posted + len(files))
                contents = [f.data for m in stage.posted() for f in m.files]
                assert contents[posted:] == [file.read_bytes() for file in files]
                posted += len(files)
            await stage.says(f"$dlt {twitter.tweet('1202', text='Just *words*.')}")
            words = await stage.hears("text only", "Just")
            assert not words.files
            web.sites.requests.clear()
            for short in (reddit.share("ae1"), tiktok.short(NUMBER)):
                asked = await stage.says(f"$download {short}")
                await stage.hears("It is here", after=asked.id)
            hosts = [request.host for request in web.sites.requests]
            # The first pictures may be on their way when the download is stopped.
            assert hosts.count("i.redd.it") < 12
            hosts = [host for host in hosts if host != "i.redd.it"]
            assert {*hosts} == {"www.reddit.com", "vm.tiktok.com", "www.tiktok.com"}
    assert [len(message.files) for message in stage.posted()] == [4, 10, 2, 1, 1, 1]
    told = [file.description for message in stage.posted() for file in message.files]
    assert told == ["", "", "", "A *cat*", *[""] * 11, "The last", *[""] * 3]
    assert not web.sites.unknown


@in_discord
async def test_what_is_missing_is_said_in_discord(
    stage: Stage, web: Web, photos: Photos, media_folder: Path
) -> None:
    open_to(stage)
    twitter, youtube = Twitter(web.sites), Counted(web.sites)
    ids = [f"aaaaaaaaa{n}1" for n in range(1, 6)]
    for number, video_id in enumerate(ids, 1):
        youtube.video(video_id, media.video(media_folder, number))
    one_dead = twitter.tweet("1203", *photos(4))
    web.sites.serve("https://pbs.twimg.com/media/F1203_2", Answer(status=404))
    limited = twitter.limited("1204", reset_in_s=630)
    gallery = Reddit(web.sites).gallery("ae2", *photos(5))
    # What the bot says to each link; the second text comes with the first.
    dialogue = {
        one_dead: ("3 of 4, 1 could not be fetched", ""),
        youtube.playlist("PLcanned", *ids): ("The first 4 of 5.", "A playlist"),
        gallery: ("The first 4 of 5.", ""),
        twitter.gone("1205"): ("**Download failed** (gone)", "Check the link."),
        limited: ("**Download failed** (rate_limited)", "10 min"),
        youtube.refused(VIDEO_ID, "bot"): ("(login)", NEXT_STEP),
    }
    with environment(**web.sites.environment):
        async with stage.bot(max_items=4):
            for link, texts in dialogue.items():
                asked = await stage.says(f"$download {link}")
                await stage.hears(*texts, after=asked.id)
