"""/plugins: for the bot's owner only."""

from conftest import SUPPORT_PLUGINS
from discord_support import Stage, link

pytest_plugins = ("discord_fixtures",)

SAYS = SUPPORT_PLUGINS / "says.py"


async def owner_uses(stage: Stage, command: str, **options: str) -> str:
    """What the bot's owner reads, alone."""
    fake = stage.fake
    asked = await fake.slash(stage.channel_id, command, options, fake.owner.id)
    answer = await fake.answered(asked)
    assert answer.only_for is fake.owner
    return answer.text


async def test_plugins_are_the_owners_and_hidden_from_others(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    fake = stage.fake
    admin = await fake.add_moderator("ada", "administrator")
    async with stage.bot():
        assert fake.commands["plugins"]["default_member_permissions"] == 0
        for user in (admin, fake.member):
            for name in ("list", "sync", "reload"):
                options = {"name": "download"} if name == "reload" else {}
                number = await fake.slash(
                    stage.channel_id, f"plugins {name}", options, user.id
                )
                answer = await fake.answered(number)
                assert answer.text == "Only the bot's owner may do that."
                assert answer.only_for is user
            choices = await fake.autocomplete(
                stage.channel_id, "plugins reload", "name", "d", user_id=user.id
            )
            assert choices == []
        await stage.says("$plugins")
        await stage.hears("Only the bot's owner may do that.")
        choices = await fake.autocomplete(
            stage.channel_id, "plugins reload", "name", "wnl", user_id=fake.owner.id
        )
        assert [choice["value"] for choice in choices] == ["download"]


async def test_list_shows_what_is_on_and_why_something_is_off(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    stage.copy_plugin(SAYS, "hello")
    async with stage.bot() as bot:
        bot.app.plugins.switch_off("hello", "*broken* @everyone")
        text = await owner_uses(stage, "plugins list")
        assert r"**hello**: \*broken\* \@everyone" in text and " on, 1 off" in text
        assert "parts\n`child_runner`" in text and "your own\n`toy`" in text


async def test_reload_exchanges_a_plugin_or_keeps_the_old_one(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    stage.copy_plugin(SAYS, "hello", WORDS="one")
    fake = stage.fake
    async with stage.bot():
        stage.copy_plugin(SAYS, "hello", WORDS="two")
        text = await owner_uses(stage, "plugins reload", name="hello.py")
        assert text == "`hello` is loaded again."
        for end in ("1 / 0", "NAME = 'download'"):
            stage.write_plugin("hello", SAYS.read_text() + end)
            text = await owner_uses(stage, "plugins reload", name="hello")
            old = "The new `hello` does not work, and the old one stays: "
            assert text.startswith(old)
            number = await fake.slash(stage.channel_id, "hello")
            assert (await fake.answered(number)).content == "two"
        stage.write_plugin("bad", "1 / 0")
        text = await owner_uses(stage, "plugins reload", name="bad")
        assert text.startswith("`bad` is off: ZeroDivisionError")
        text = await owner_uses(stage, "plugins reload", name="helo")
        assert text == r"No plugin helo \(did you mean hello?\)"
        text = await owner_uses(stage, "plugins reload", name="sqlite_queue")
        assert text == (
            "`sqlite_queue` is loaded again. It is a part of the bot, so the change "
            "takes effect after a restart."
        )


async def test_plugin_that_the_command_itself_needs_can_be_reloaded(
    stage: Stage,
) -> None:
    stage.add_plugin("plugin_commands")
    async with stage.bot():
        for stem in ("plugin_commands", "permissions") * 2:
            text = await owner_uses(stage, "plugins reload", name=stem)
            assert text == f"`{stem}` is loaded again."


async def test_reload_loses_no_running_download(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    async with stage.bot():
        for number, stem in enumerate(("download", "progress", "permissions"), 1):
            asked = await stage.says(f"$download {link(f'wait={stem}', stage.image())}")
            await stage.hears("Download", after=asked.id)
            text = await owner_uses(stage, "plugins reload", name=stem)
            assert text == f"`{stem}` is loaded again."
            stage.open_gate(stem)
            post = (await stage.gets(number))[-1]
            assert post.replied_to is asked, stem
            await stage.hears("Done in", after=asked.id)


async def test_reload_finds_a_plugin_whatever_letters_are_large(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    stage.copy_plugin(SAYS, "Hello")
    async with stage.bot():
        for named in ("hello", "Hello", "HELLO.py"):
            text = await owner_uses(stage, "plugins reload", name=named)
            assert text == "`Hello` is loaded again.", named
        stage.copy_plugin(SAYS, "New", NAME="new")
        text = await owner_uses(stage, "plugins reload", name="New")
        assert text == "`New` is loaded again."


async def test_sync_tells_discord_again(stage: Stage) -> None:
    stage.add_plugin("plugin_commands")
    async with stage.bot():
        before = stage.requested("commands")
        assert await owner_uses(stage, "plugins sync") == "Discord has 3 commands now."
        assert stage.requested("commands") == before + 1
        stage.fake.fault("commands", 403)
        text = await owner_uses(stage, "plugins sync")
        assert text == "Discord does not accept the commands. The log has the reason."
