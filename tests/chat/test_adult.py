"""Adult media: free in age-restricted channels, elsewhere as the server says."""

import shutil
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins import adult as plugin
from conftest import SUPPORT_PLUGINS, SmallApp, make_job
from discord_support import Stage, job_at, job_id, link
from fake_discord import Message

from bossbot import Cause, Status

pytest_plugins = ("discord_fixtures",)

NO = "which I only post in age-restricted channels here"
RULES = ("refuse", "spoiler", "allow")


@pytest.fixture
def adult(stage: Stage) -> str:
    """A link to adult media."""
    stage.add_plugin("adult")
    return link(stage.facts("post", title="Her title", adult=True), stage.image())


def set_rule(stage: Stage, rule: str, guild_id: int | None = None) -> None:
    folder = stage.folder / "data" / "guilds"
    folder.mkdir(parents=True, exist_ok=True)
    number = stage.fake.guild.id if guild_id is None else guild_id
    (folder / f"{number}.toml").write_text(f'[adult]\nadult = "{rule}"\n')


def is_spoiler(message: Message) -> bool:
    return message.files[0].filename.startswith("SPOILER_")


@pytest.mark.parametrize("place", ["channel", "thread"])
@pytest.mark.parametrize("rule", RULES)
async def test_adult_media_goes_freely_to_age_restricted_channels(
    stage: Stage, adult: str, rule: str, place: str
) -> None:
    set_rule(stage, rule)
    where = stage.fake.channel
    await stage.fake.restrict(where.id)
    if place == "thread":  # it has the mark of its channel
        where = await stage.fake.add_thread(where.id, "chat")
    async with stage.bot():
        await stage.says(f"$download {adult}", where.id)
        [message] = await stage.gets(1, where.id)
    assert not is_spoiler(message)


@pytest.mark.parametrize("place", ["channel", "thread"])
@pytest.mark.parametrize("rule", ["", *RULES])
async def test_elsewhere_the_server_decides(
    stage: Stage, adult: str, rule: str, place: str
) -> None:
    if rule:
        set_rule(stage, rule)
    where = stage.fake.channel
    if place == "thread":
        where = await stage.fake.add_thread(where.id, "chat")
    async with stage.bot() as bot:
        await stage.says(f"$download {adult}", where.id)
        if rule in ("", "refuse"):
            await stage.hears("**Download failed**", NO, channel_id=where.id)
            [job] = await bot.app.queue.list()
            assert (job.status, job.cause) == (Status.FAILED, Cause.PERMISSION)
            assert not job.folder
            return
        [message] = await stage.gets(1, where.id)
    assert is_spoiler(message) is (rule == "spoiler")
    assert ("||Her title||" in message.content) is (rule == "spoiler")


async def test_owner_is_bound_by_the_rule(stage: Stage, adult: str) -> None:
    fake = stage.fake
    async with stage.bot():
        await fake.member_says(fake.channel.id, f"$download {adult}", fake.owner.id)
        await stage.hears("**Download failed**", NO)


@pytest.mark.parametrize("facts", [{}, {"adult": False}])
async def test_other_media_is_posted_anywhere(
    stage: Stage, facts: dict[str, Any]
) -> None:
    stage.add_plugin("adult")
    async with stage.bot():
        await stage.says(
            f"$download {link(stage.facts('post', **facts), stage.image())}"
        )
        [message] = await stage.gets(1)
    assert not is_spoiler(message)


async def test_words_of_an_adult_post_are_refused_too(stage: Stage) -> None:
    stage.add_plugin("adult")
    text = stage.facts("text", text="A story.", adult=True)
    async with stage.bot():
        await stage.says(f"$download {link(text)}")
        await stage.hears("**Download failed**", NO)
    assert not any("A story" in message.text for message in stage.said())


@pytest.mark.parametrize("rule", ["refuse", "spoiler"])
async def test_channel_that_loses_its_mark_gets_no_adult_media(
    stage: Stage, adult: str, rule: str
) -> None:
    set_rule(stage, rule)
    fake = stage.fake
    await fake.restrict(fake.channel.id)
    # It is held between what decides after the download, and the posting.
    stage.hook(
        "hold",
        "async def process_files(job, files):\n"
        "    from pathlib import Path\n"
        f"    while not Path({str(stage.gates / 'go')!r}).exists():\n"
        "        await asyncio.sleep(0.01)",
    )
    async with stage.bot() as bot:
        await stage.says(f"$download {adult}")
        status = await stage.hears("Download started")
        await job_at(bot, job_id(status), Status.PROCESSING)
        await fake.restrict(fake.channel.id, nsfw=False)
        await fake.wait_for(lambda: not bot.get_channel(fake.channel.id).nsfw)
        stage.open_gate("go")
        if rule == "refuse":
            await stage.hears("**Download failed**", NO)
            assert not stage.posted()
        else:
            [message] = await stage.gets(1)
            assert is_spoiler(message)


@pytest.mark.parametrize("rule", ["", "allow"])
async def test_direct_messages_are_not_age_restricted(
    stage: Stage, adult: str, rule: str
) -> None:
    if rule:
        set_rule(stage, rule, guild_id=0)
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot(download__direct_messages=True):
        await stage.says(f"$download {adult}", direct.id)
        if rule:
            await stage.gets(1, direct.id)
        else:
            refusal = "do not post in direct messages"
            await stage.hears("**Download failed**", refusal, channel_id=direct.id)


@pytest.mark.parametrize("rule", RULES)
async def test_site_that_is_all_adult_is_refused_at_once(
    stage: Stage, rule: str
) -> None:
    stage.add_plugin("adult")
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    set_rule(stage, rule)
    async with stage.bot(toy_site__adult=True) as bot:
        await stage.says(f"$download {link(stage.image())}")
        if rule == "refuse":
            await stage.hears(NO)
            assert await bot.app.queue.list() == []
            return
        [message] = await stage.gets(1)
    assert is_spoiler(message) is (rule == "spoiler")


# A courier without the gateway


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("nsfw", [False, True])
async def test_discord_is_asked_where_there_is_no_gateway(
    stage: Stage, nsfw: bool, thread: bool
) -> None:
    place = stage.fake.channel
    await stage.fake.restrict(place.id, nsfw)
    if thread:
        place = await stage.fake.add_thread(place.id, "chat")
    app = stage.app(discord_token=stage.fake.token)
    with stage.fake.redirect():
        try:
            await app.client.start()
            assert await plugin.is_restricted(app.bot, place.id) is nsfw
            assert not await plugin.is_restricted(app.bot, 12345)
        finally:
            await app.stop()


async def test_command_line_has_no_channel(small_app: SmallApp) -> None:
    app = small_app("adult")
    app.plugins.load()
    app.client.bot = SimpleNamespace()  # type: ignore[assignment]
    job = make_job(guild_id=0, channel_id=0, facts={"adult": True})
    values = {"files": [], "bench": None}
    assert await app.plugins.fold("process_files", "files", job=job, **values) == []
