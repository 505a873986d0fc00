"""What can be asked for with a link, and the doors by which it is asked."""

from collections.abc import AsyncIterator
from typing import Any

import media
import pytest
from conftest import SmallApp, make_job
from discord_support import Stage, link, module
from fake_discord import Message

from bossbot import App, Job, Refused

pytest_plugins = ("discord_fixtures",)

MENU = "Download media"


def set_up(stage: Stage, **download: Any) -> None:
    """Gives the server these settings of downloads."""
    folder = stage.folder / "data" / "guilds"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {str(value).lower()}" for key, value in download.items()]
    text = "\n".join(["[download]", *lines])
    (folder / f"{stage.fake.guild.id}.toml").write_text(text)


# ── The words of a $ command ───────────────────────────────────────────────────────

URL = "https://toy.example/a"
WORDS: list[tuple[str, dict[str, Any]]] = [
    (URL, {}),
    (f"audio {URL}", {"quality": "audio"}),
    (f"{URL} 720", {"quality": "720"}),
    (f"{URL} 1080p Thread", {"quality": "1080", "thread": True}),
    (f"480 SPOILER\n{URL} subtitles", {"quality": "480", "spoiler": True,
                                       "subtitles": True}),
    (f"best 720 {URL}", {"quality": "720"}),
    # Only whole words count, and none inside a link.
    (f"look at this: audiobook, 720px, {URL}/thread/audio?spoiler", {}),
    (f"no-thread {URL}#best", {}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "options"), WORDS)
def test_words_of_a_command_are_what_is_asked_for(
    small_app: SmallApp, words: str, options: dict[str, Any]
) -> None:
    small_app("download").plugins.load()
    rest, found = module("download").asked_for(words)
    assert found == options
    assert URL in rest


@pytest.fixture
async def app(small_app: SmallApp) -> AsyncIterator[App]:
    app = small_app("download")
    app.plugins.load()
    yield app


QUALITIES = [
    # asked for, the server's, what it comes to
    (None, "best", "best"),
    (None, "720", "720"),
    ("best", "1080", "1080"),
    ("720", "best", "720"),
    ("1080", "480", "480"),
    ("480", "1080", "480"),
    ("audio", "480", "audio"),
    ("best", "audio", "audio"),
]


@pytest.mark.parametrize(("asked", "most", "quality"), QUALITIES)
async def test_quality_is_within_that_of_the_server(
    app: App, asked: str | None, most: str, quality: str
) -> None:
    options = {"quality": asked} if asked else {}
    job = make_job(options=options, guild_settings={"download": {"quality": most}})
    await app.plugins.call("check_job", job=job)
    assert job.options.get("quality", "best") == quality


@pytest.mark.parametrize("spoiler", [True, False])
async def test_server_can_make_everything_a_spoiler(app: App, spoiler: bool) -> None:
    job = make_job(guild_settings={"download": {"spoiler": spoiler}})
    await app.plugins.call("check_job", job=job)
    assert job.options.get("spoiler", False) is spoiler


@pytest.mark.parametrize(("guild_id", "channel_id"), [(0, 2), (1, 2), (0, 0)])
async def test_links_of_direct_messages_are_refused(
    app: App, guild_id: int, channel_id: int
) -> None:
    job = make_job(guild_id=guild_id, channel_id=channel_id)
    if guild_id or not channel_id:  # the command line has neither
        await app.plugins.call("check_job", job=job)
        return
    with pytest.raises(Refused, match="not in direct messages"):
        await app.plugins.call("check_job", job=job)


# ── The doors ──────────────────────────────────────────────────────────────────────


async def stored(bot: Any) -> Job:
    [job] = await bot.app.queue.list()
    return job  # type: ignore[no-any-return]


async def test_what_is_asked_for_reaches_the_job(stage: Stage) -> None:
    url = link(stage.image())
    words = "720 spoiler thread subtitles"
    marks = {"spoiler": True, "thread": True, "subtitles": True}
    async with stage.bot() as bot:
        for number, door in enumerate(("$", "/", "reply"), 1):
            if door == "$":
                asked = (await stage.says(f"$dlt {url} {words}")).id
            elif door == "reply":
                asked = (await stage.says(f"{url} audio")).id
                await stage.fake.member_says(
                    stage.channel_id, f"$dl {words}", reply_to=asked
                )
            else:
                options = {"url": url, "quality": "720"} | marks
                asked = await stage.fake.slash(stage.channel_id, "download", options)
            message = (await stage.gets(number))[-1]
            assert message.files[0].filename.startswith("SPOILER_"), door
            told = "I cannot fetch threads there, only this post: <https://toy"
            await stage.hears(told, after=asked)
        jobs = await bot.app.queue.list()
    assert [job.options for job in jobs] == [{"quality": "720"} | marks] * 3


async def test_only_the_sound_is_posted_where_that_is_asked_for(stage: Stage) -> None:
    stage.add_plugin("sound_only")
    url = link(f"file={media.video(stage.media).name}", stage.image())
    async with stage.bot():
        options = {"url": url, "quality": "audio"}
        await stage.fake.slash(stage.channel_id, "download", options)
        [message] = await stage.gets(1)
    [file] = message.files
    assert file.filename.endswith(".m4a")


async def test_settings_of_the_server_reach_the_job(stage: Stage) -> None:
    set_up(stage, quality="'480'", spoiler=True)
    async with stage.bot() as bot:
        await stage.says("$dl audio 720")
        await stage.hears("Give me a link")
        await stage.says(f"$download best {link(stage.image())}")
        [message] = await stage.gets(1)
        assert (await stored(bot)).options["quality"] == "480"
    assert message.files[0].filename.startswith("SPOILER_")


async def test_direct_messages_are_answered_with_one_sentence(stage: Stage) -> None:
    url = link(stage.image())
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot() as bot:
        asked = [
            (await stage.says(f"$download {url}", direct.id)).id,
            (await stage.says("$dl", direct.id)).id,
            await stage.fake.slash(direct.id, "download", {"url": url}),
        ]
        for one in asked:
            told = "not in direct messages"
            await stage.hears(told, channel_id=direct.id, after=one)
        await stage.fake.settle()
        assert await bot.app.queue.list() == []
    assert len(stage.said(direct.id)) == 3


# ── The menu of a message ──────────────────────────────────────────────────────────


async def test_menu_downloads_the_links_of_a_message(stage: Stage) -> None:
    urls = [link(step) for step in stage.images(2)]
    async with stage.bot() as bot:
        message = await stage.says(f"look: {urls[0]} and ||{urls[1]}||, both 720")
        await stage.fake.use_on(message.id, MENU)
        posts = await stage.gets(2)
        jobs = await bot.app.queue.list()
    assert [job.url for job in jobs] == urls
    assert all(job.user_id == stage.fake.member.id for job in jobs)
    spoilers = [post.files[0].filename.startswith("SPOILER_") for post in posts]
    assert sorted(spoilers) == [False, True]
    assert not any("quality" in job.options for job in jobs)


def private(message: Message, stage: Stage) -> bool:
    return message.only_for is stage.fake.member


REFUSALS = {
    "no link": "There is no link in that message.",
    "bad link": "Not supported",
    "denied": "You may not use this bot on this server.",
    "bot lacks": "I cannot post files here",
    "member lacks": "You need Attach Files",
}


async def test_menu_answers_its_member_only_where_nothing_is_posted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = stage.fake, link(stage.image())

    def route(link: str) -> Any:
        raise Refused("Not supported: as the test wants.")

    async with stage.bot() as bot:
        for case, told in REFUSALS.items():
            message = await stage.says("nothing here" if case == "no link" else url)
            with monkeypatch.context() as patch:
                lacks = "attach_files"
                if case == "bad link":
                    patch.setattr(bot.app.router, "route", route)
                elif case == "denied":
                    denied = f"[permissions]\ndenied_users = [{fake.member.id}]\n"
                    stage.guild_settings(denied)
                elif case == "bot lacks":
                    await fake.deny_member(fake.channel.id, fake.bot.id, lacks)
                elif case == "member lacks":
                    await fake.deny_member(fake.channel.id, fake.bot.id)
                    await fake.deny_member(fake.channel.id, fake.member.id, lacks)
                await fake.use_on(message.id, MENU)
                answer = await stage.hears(told, after=message.id)
                await fake.settle()
            stage.guild_settings("")
            assert private(answer, stage), case
            assert await bot.app.queue.list() == [], case
    assert len(stage.said()) == len(REFUSALS)
