"""Adult media: free in age-restricted channels, elsewhere as the server says."""

import shutil
from types import SimpleNamespace

import pytest
from bossbot_plugins import adult as plugin
from conftest import SUPPORT_PLUGINS, SmallApp, make_job
from discord_support import Stage, job_at, job_id, link, module
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


async def posted(stage: Stage, url: str, channel_id: int) -> Message:
    """The message with the file of this link."""
    asked = await stage.says(f"$download {url}", channel_id)

    def files() -> list[Message]:
        return [one for one in stage.posted(channel_id) if one.id > asked.id]

    [message] = await stage.fake.wait_for(files)
    return message  # type: ignore[no-any-return]


async def refused(stage: Stage, url: str, channel_id: int, told: str = NO) -> Message:
    """The status message of a link whose media is not posted."""
    asked = await stage.says(f"$download {url}", channel_id)
    failed = "**Download failed**"
    return await stage.hears(failed, told, channel_id=channel_id, after=asked.id)


@pytest.mark.parametrize("place", ["channel", "thread"])
async def test_adult_media_goes_freely_only_to_age_restricted_channels(
    stage: Stage, adult: str, place: str
) -> None:
    fake, where = stage.fake, stage.fake.channel
    if place == "thread":  # it has the mark of its channel
        where = await fake.add_thread(where.id, "chat")
    async with stage.bot() as bot:
        for rule in ("", *RULES):  # elsewhere the server decides
            if rule:
                set_rule(stage, rule)
            if rule in ("", "refuse"):
                told = await refused(stage, adult, where.id)
                job = await job_at(bot, job_id(told), Status.FAILED)
                assert job.cause is Cause.PERMISSION and not job.folder, rule
                continue
            message = await posted(stage, adult, where.id)
            assert is_spoiler(message) is (rule == "spoiler")
            assert ("||Her title||" in message.content) is (rule == "spoiler")
        await fake.restrict(fake.channel.id)
        await fake.settle()
        for rule in RULES:
            set_rule(stage, rule)
            assert not is_spoiler(await posted(stage, adult, where.id)), rule


async def test_owner_and_words_are_bound_by_the_rule_and_other_media_is_not(
    stage: Stage, adult: str
) -> None:
    fake, place = stage.fake, stage.channel_id
    text = stage.facts("text", text="A story.", adult=True)
    async with stage.bot():
        await fake.member_says(place, f"$download {adult}", fake.owner.id)
        await stage.hears("**Download failed**", NO)
        await refused(stage, link(text), place)
        assert not any("A story" in message.text for message in stage.said())
        for name, facts in (("unknown", {}), ("harmless", {"adult": False})):
            url = link(stage.facts(name, **facts), stage.image())
            assert not is_spoiler(await posted(stage, url, place)), name


@pytest.mark.parametrize("rule", ["refuse", "spoiler"])
async def test_channel_that_loses_its_mark_gets_no_adult_media(
    stage: Stage, adult: str, rule: str
) -> None:
    set_rule(stage, rule)
    fake = stage.fake
    await fake.restrict(fake.channel.id)
    # It is held between what decides after the download, and the posting.
    stage.copy_plugin(SUPPORT_PLUGINS / "slow.py", HOOK="process_files")
    async with stage.bot() as bot:
        await stage.says(f"$download {adult}")
        status = await stage.hears("Download started")
        await job_at(bot, job_id(status), Status.PROCESSING)
        await fake.restrict(fake.channel.id, nsfw=False)
        await fake.wait_for(lambda: not bot.get_channel(fake.channel.id).nsfw)
        module("slow").may_go_on.set()
        if rule == "refuse":
            await stage.hears("**Download failed**", NO)
            assert not stage.posted()
        else:
            [message] = await stage.gets(1)
            assert is_spoiler(message)


async def test_direct_messages_are_not_age_restricted(stage: Stage, adult: str) -> None:
    direct = stage.fake.open_dm(stage.fake.member.id)
    async with stage.bot(download__direct_messages=True):
        await refused(stage, adult, direct.id, "do not post in direct messages")
        set_rule(stage, "allow", guild_id=0)
        await posted(stage, adult, direct.id)


async def test_site_that_is_all_adult_is_refused_at_once(stage: Stage) -> None:
    stage.add_plugin("adult")
    shutil.copy(SUPPORT_PLUGINS / "toy_site.py", stage.plugins)
    url = link(stage.image())
    set_rule(stage, "refuse")
    async with stage.bot(toy_site__adult=True) as bot:
        await stage.says(f"$download {url}")
        await stage.hears(NO)
        assert await bot.app.queue.list() == []
        for rule in ("spoiler", "allow"):
            set_rule(stage, rule)
            message = await posted(stage, url, stage.channel_id)
            assert is_spoiler(message) is (rule == "spoiler")


# A courier without the gateway


async def test_discord_is_asked_where_there_is_no_gateway(stage: Stage) -> None:
    place = stage.fake.channel
    thread = await stage.fake.add_thread(place.id, "chat")
    app = stage.app(discord_token=stage.fake.token)
    with stage.fake.redirect():
        try:
            await app.client.start()
            for nsfw in (False, True):
                await stage.fake.restrict(place.id, nsfw)
                for one in (place, thread):
                    assert await plugin.is_restricted(app.bot, one.id) is nsfw
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
