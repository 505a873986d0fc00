"""What becomes of the message that asked."""

import pytest
from discord_support import Stage, link

pytest_plugins = ("discord_fixtures",)

SUPPRESSED = 4  # Discord's flag of a message without previews


def set_up(stage: Stage, *settings: str) -> None:
    stage.add_plugin("request")
    folder = stage.folder / "data" / "guilds"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["[request]", *(f"{setting} = true" for setting in settings)]
    text = "\n".join([*lines, "[progress]", 'status_when_done = "keep"'])
    (folder / f"{stage.fake.guild.id}.toml").write_text(text)


async def test_request_is_deleted_once_all_its_files_are_there_and_nothing_failed(
    stage: Stage,
) -> None:
    set_up(stage, "delete_request")
    one, two = link(stage.image()), link("wait=gate", stage.image(2))
    async with stage.bot():
        request = await stage.says(f"$download {one} {two}")
        await stage.gets(1)
        await stage.hears("Done in")
        await stage.fake.settle()
        assert not request.deleted
        stage.open_gate("gate")
        await stage.gets(2)
        await stage.fake.wait_for(lambda: request.deleted)
        links = [link("fail=gone"), link("wait=second", stage.image())]
        request = await stage.says(f"$download {' '.join(links)}")
        await stage.hears("Download failed", after=request.id)
        stage.open_gate("second")
        await stage.hears("Done in", after=request.id)
        await stage.fake.settle()
    assert not request.deleted


async def test_previews_of_a_request_go_at_once(stage: Stage) -> None:
    set_up(stage, "suppress_preview")
    async with stage.bot():
        for links in (1, 2):
            urls = [link(f"wait={links}", stage.image(n)) for n in range(links)]
            fault = stage.fake.fault("edit", 503)  # Discord is away for a moment
            request = await stage.says(f"$download {' '.join(urls)}")
            await stage.fake.wait_for(lambda r=request: r.flags & SUPPRESSED)
            assert fault.hits
            stage.open_gate(f"{links}")
            await stage.hears("Done in", after=request.id)
            assert not request.deleted


async def test_nothing_becomes_of_a_request_by_default(stage: Stage) -> None:
    set_up(stage)
    async with stage.bot():
        request = await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Done in")
        await stage.fake.settle()
    assert not request.deleted and not request.flags


async def test_messages_that_are_no_requests_stay_as_they_are(stage: Stage) -> None:
    set_up(stage, "delete_request", "suppress_preview")
    fake, url = stage.fake, link(stage.image())
    async with stage.bot():
        message = await stage.says(f"look at {url}")
        await fake.use_on(message.id, "Download media")
        await fake.slash(stage.channel_id, "download", {"url": url})
        await fake.member_says(stage.channel_id, "$dl", reply_to=message.id)
        await stage.gets(3)
        await fake.wait_for(lambda: sum("Done in" in m.text for m in stage.said()) == 3)
        await fake.settle()
    assert not message.deleted and not message.flags


@pytest.mark.parametrize("setting", ["delete_request", "suppress_preview"])
async def test_missing_permission_is_named_once(stage: Stage, setting: str) -> None:
    set_up(stage, setting)
    fake = stage.fake
    await fake.deny_member(stage.channel_id, fake.bot.id, "manage_messages")
    async with stage.bot():
        for _number in range(2):
            await stage.says(f"$download {link(stage.image())}")
            await stage.hears(f"`{setting}`", "give me: Manage Messages")
            await fake.settle()
        told = [m for m in stage.said() if "Manage Messages" in m.text]
        assert len(told) == 1
        # Once it has been there, its loss is news again.
        await fake.deny_member(stage.channel_id, fake.bot.id)
        request = await stage.says(f"$download {link(stage.image())}")
        await fake.wait_for(lambda: request.deleted or request.flags & SUPPRESSED)
        await fake.settle()
        await fake.deny_member(stage.channel_id, fake.bot.id, "manage_messages")
        await stage.says(f"$download {link(stage.image())}")
        await stage.hears("Manage Messages", after=request.id)
