"""/help: what its member may use, made from the commands themselves."""

import shutil
from pathlib import Path

from discord_support import Stage

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"


async def help_of(stage: Stage, words: str = "", user: int = 0, door: str = "$") -> str:
    """What a member reads who asks for help."""
    fake = stage.fake
    if door == "$":
        asked = await fake.member_says(
            stage.channel_id, f"$help {words}".strip(), user or None
        )
        return (await stage.hears("", after=asked.id)).text
    options = {"command": words} if words else {}
    number = await fake.slash(stage.channel_id, "help", options, user or None)
    answer = await fake.answered(number)
    assert answer.only_for is not None
    return answer.text


async def test_help_names_the_entry_of_a_menu_as_discord_does(stage: Stage) -> None:
    stage.add_plugin("help")
    stage.add_plugin("language")
    stage.fake.guild.locale = "de"
    async with stage.bot():
        text = await help_of(stage)
    assert "Apps > Medien herunterladen` Lädt herunter, was hinter den Links" in text


async def test_help_names_slash_commands_as_the_member_s_discord_does(
    stage: Stage,
) -> None:
    for name in ("help", "language", "queue"):
        stage.add_plugin(name)
    fake = stage.fake
    fake.member.locale = "de"
    async with stage.bot():
        text = await help_of(stage, door="/")
        assert "`/warteschlange abbrechen id` Cancel a download" in text
        assert "Apps > Medien herunterladen` Download the media behind" in text
        assert "`/warteschlange liste`" in await help_of(stage, "warteschlange", 0, "/")
        one = await help_of(stage, "queue cancel", 0, "/")
        assert (
            one.startswith("/warteschlange abbrechen id\n") and "$queue cancel" in one
        )
        assert "`$queue cancel <id>` Cancel a download" in await help_of(stage)
        [choice] = await fake.autocomplete(
            stage.channel_id, "help", "command", "warteschlange li"
        )
        assert choice == {"name": "warteschlange liste", "value": "queue list"}


async def test_answer_that_needs_an_embed_says_that_the_bot_may_send_none(
    stage: Stage,
) -> None:
    for name in ("about", "help", "queue", "settings"):
        stage.add_plugin(name)
    fake = stage.fake
    async with stage.bot():
        await fake.deny_member(stage.channel_id, fake.bot.id, "embed_links")
        for words in ("$help", "$queue", "$settings", "$about"):
            asked = await stage.says(words)
            answer = await stage.hears("", after=asked.id)
            assert answer.content.endswith("admin to give me: Embed Links."), words
            assert not answer.buttons


async def test_help_lists_what_the_member_may_use_by_plugin_with_an_example(
    stage: Stage,
) -> None:
    stage.add_plugin("help")
    shutil.copy(PLUGINS / "tools.py", stage.plugins)
    fake = stage.fake
    moderator = await fake.add_moderator("mo")
    async with stage.bot():
        text = await help_of(stage)
        words = "[audio|480|720|1080|best] [thread] [spoiler] [subtitles]"
        assert f"`$download [link] {words}` Download the media behind" in text
        assert "\n`right-click a message > Apps > Download media` " in text
        assert "-# Example: `$download https://youtu.be/jNQXAC9IVRw`" in text
        assert "`$box open [name]` Open a box.\n-# Example: `$box open`" in text
        assert "`/slashed url [limit]` Only a slash command." in text
        assert "`right-click a message > Apps > Look` Look at a message." in text
        assert "$help [command]" in text and "dlh" not in text
        for hidden in ("fix", "Fix", "secret", "broken", "`$box`"):
            assert hidden not in text
        text = await help_of(stage, user=moderator.id)
        assert r"`$fix <small|large> <id> [count]` Fix something \*now\*." in text
        assert "-# Example: `$fix small 4f09c1d2aa`" in text
        assert "Fix what is behind a message." in text and "secret" not in text
        assert "`$secret` For the owner." in await help_of(stage, user=fake.owner.id)
        text = await help_of(stage, door="/", user=moderator.id)
        assert "`/fix size id [count]` Fix" in text
        assert "-# Example: `/fix size:small id:4f09c1d2aa`" in text
        assert (
            "`/download url [quality] [thread] [spoiler] [subtitles]`" in text
            and "$download" not in text
        )


async def test_help_explains_one_command(stage: Stage) -> None:
    stage.add_plugin("help")
    shutil.copy(PLUGINS / "tools.py", stage.plugins)
    fake = stage.fake
    moderator = await fake.add_moderator("mo")
    async with stage.bot():
        for words in ("fix", "$fix", "/FIX", "mend", "tfx"):
            text = await help_of(stage, words, user=moderator.id)
            assert text.startswith("$fix <small|large> <id> [count]\n"), words
        assert "What is not broken stays as it is." in text
        assert "`size` how large: `small`, `large` (needed)\n`id` (needed)\n" in text
        assert "`count` how many\n" in text
        assert "Example\n`$fix small 4f09c1d2aa`" in text
        assert "`/fix size id [count]`, `$mend`, `$tfx`" in text
        text = await help_of(stage, "fix", user=moderator.id, door="/")
        assert text.startswith("/fix size id [count]\n") and "`$mend`" in text
        assert "Open a box." in await help_of(stage, "box")


async def test_help_tells_nobody_of_what_they_may_not_use(stage: Stage) -> None:
    stage.add_plugin("help")
    shutil.copy(PLUGINS / "tools.py", stage.plugins)
    async with stage.bot():
        text = await help_of(stage, "fix")
        assert text == "There is no command fix that you may use."
        assert text.replace("fix", "secret") == await help_of(stage, "secret")
        text = await help_of(stage, "downlod", door="/")
        assert text.endswith("that you may use (did you mean download?).")
        choices = await stage.fake.autocomplete(
            stage.channel_id, "help", "command", "x"
        )
        assert [choice["name"] for choice in choices] == ["box open"]


async def test_short_form_gives_the_same(stage: Stage) -> None:
    stage.add_plugin("help")
    async with stage.bot():
        asked = await stage.says("$dlh")
        assert (await stage.hears("", after=asked.id)).text == await help_of(stage)


async def test_long_help_comes_in_pages_that_survive_a_restart(stage: Stage) -> None:
    stage.add_plugin("help")
    shutil.copy(PLUGINS / "many.py", stage.plugins)
    fake = stage.fake
    async with stage.bot():
        await stage.says("$help")
        first = await stage.hears("Page 1 of 4")
        assert first.buttons == ["Next"] and "many05" in first.text
        await fake.settle()
        await fake.click(first.id, "Next")
        await stage.hears("Page 2 of 4", "$many07")
        assert first.buttons == ["Previous", "Next"]
        answer = await fake.answered(
            await fake.click(first.id, "Next", user_id=fake.owner.id)
        )
        assert "somebody else's" in answer.content and answer.only_for is fake.owner
    async with stage.bot():
        await fake.click(first.id, "Next")
        await stage.hears("Page 3 of 4", "$many21")
        private = await fake.answered(await fake.slash(stage.channel_id, "help"))
        assert "/many00" in private.text
        await fake.settle()
        await fake.click(private.id, "Next")
        await fake.wait_for(lambda: "Page 2 of 4" in private.text)
        assert "/many07" in private.text


async def test_help_of_every_command_fits_discord(stage: Stage) -> None:
    stage.add_plugin("help")
    shutil.copy(PLUGINS / "many.py", stage.plugins)
    async with stage.bot(many__help="x " * 3000):
        assert "many00" in await help_of(stage)
        assert "x x x" in await help_of(stage, "many00")
