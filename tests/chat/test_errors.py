"""What a member reads when something fails, and what the log says about it."""

import re
import shutil
from pathlib import Path

import discord
import pytest
from bossbot_plugins._errors import misspelt
from discord_support import Stage
from fake_discord import Message

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"

INTERNAL = "Something went wrong inside the bot."


def error_id(answer: Message) -> str:
    """The id in the embed of an error, which must have one."""
    [embed] = answer.embeds
    found = re.fullmatch("Error ([0-9a-f]{8})", embed["footer"]["text"])
    assert found
    return found[1]


def logged_as(logged: list[str], number: str) -> str:
    [line] = [line for line in logged if number in line]
    return line


async def test_failure_of_a_prefix_command_has_an_id_that_the_log_has_too(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    async with stage.bot():
        asked = await stage.says("$fail boom")
        answer = await stage.hears(INTERNAL)
    assert answer.replied_to is asked and not answer.mentions
    line = logged_as(logged, error_id(answer))
    assert line.startswith("ERROR ") and "$fail: KeyError: 'boom'" in line
    assert "Traceback" in line and "in fail" in line


async def test_failure_of_a_slash_command_is_told_its_member_only(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake = stage.fake
    async with stage.bot():
        for how in ("boom", "defer"):
            asked = await fake.slash(stage.channel_id, "fail", {"how": how})
            answer = await fake.answered(asked)
            assert INTERNAL in answer.text and answer.only_for is fake.member
            line = logged_as(logged, error_id(answer))
            assert line.startswith(f"ERROR error {error_id(answer)} in /fail: KeyError")


async def test_failure_of_a_button_or_a_menu_is_answered(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake = stage.fake
    async with stage.bot():
        said = await stage.says("$buttons")
        shown = await stage.hears("Click.")
        await fake.settle()  # the bot has its answer, and listens
        buttons = {"Plain": "'plain'", "Dynamic": "dynamic", "Lost": "'lost'"}
        for button, raised in buttons.items():
            answer = await fake.answered(await fake.click(shown.id, button))
            assert INTERNAL in answer.text and answer.only_for is fake.member, button
            assert raised in logged_as(logged, error_id(answer))
        answer = await fake.answered(await fake.use_on(said.id, "Tease"))
    assert INTERNAL in answer.text and answer.only_for is fake.member
    assert "in /Tease: KeyError: 'menu'" in logged_as(logged, error_id(answer))


async def test_failure_of_an_autocomplete_is_told_in_place_of_choices(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake, where = stage.fake, stage.channel_id
    async with stage.bot():
        assert await fake.autocomplete(where, "pick", "count", "1") == []
        [choice] = await fake.autocomplete(where, "fail", "how", "typed")
        assert choice["name"].startswith(INTERNAL) and choice["value"] == "typed"
        number = choice["name"][-8:]
        # A form's is like that of a button.
        for kind in (discord.ui.Modal, discord.ui.LayoutView):
            assert kind.on_error is discord.ui.View.on_error
    line = logged_as(logged, number)
    assert line.startswith(f"ERROR error {number} in /fail: KeyError: 'hows'")
    assert any("in /pick: KeyError: 'choices'" in line for line in logged)


async def test_refusals_carry_no_id_and_are_private_for_slash(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake = stage.fake
    async with stage.bot():
        for how, text in (
            ("denied", "You may not, *really*."),
            ("refused", "No, <@&1>."),
        ):
            asked = await fake.slash(stage.channel_id, "fail", {"how": how})
            answer = await fake.answered(asked)
            assert (answer.content, answer.embeds) == (text, [])
            assert answer.only_for is fake.member
            await stage.says(f"$fail {how}")
            answer = await stage.hears(text, after=answer.id)
            assert (answer.content, answer.embeds) == (text, [])
        await stage.says("$buttons")
        shown = await stage.hears("Click.")
        await fake.settle()  # the bot has its answer, and listens
        answer = await fake.answered(await fake.click(shown.id, "Denied"))
        assert (answer.content, answer.only_for) == (
            "You may not click that.",
            fake.member,
        )
        await stage.says("$manage")
        await stage.hears("You may not do that here. You need Manage Server.")
        await stage.says("$own")
        await stage.hears("Only the bot's owner may do that.")
    assert not [line for line in logged if "ERROR" in line]


ANSWERS = {
    "$fail failed": "That post has been deleted or never existed. Check the link.",
    "$fail disk": "The bot's disk is full. Ask the bot's owner to make room.",
    "$fail slow": "That took too long and was stopped. Try again later.",
    "$fail lost": "Discord cannot be reached at the moment. Try again in a minute.",
    "$fail unsafe": r"\*\*bold\*\* \@everyone",
    "$pick": "Something is missing: `size`.\n`$pick <small|large> [count]`",
    "$pick huge": "`size` is one of: `small`, `large`.",
    "$pick small x": "That is not one of the possible values.",
    '$pick "small': "The quotation marks in that do not match.",
    "$where": "Something is missing: `place`.",
    "$where **nowhere**": r"There is no \*\*nowhere\*\*.",
    "$where #general 7": "That must be between 1 and 3.",
    "$strict extra": "There is one word too many.\n`$strict`",
}


async def test_errors_say_what_was_wrong_and_what_to_do(
    stage: Stage, logged: list[str]
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    async with stage.bot():
        for said, answer in ANSWERS.items():
            asked = await stage.says(said.replace("#general", f"<#{stage.channel_id}>"))
            heard = await stage.hears(answer, after=asked.id)
            line = logged_as(logged, error_id(heard))
            level = "ERROR" if said.startswith("$fail") else "DEBUG"
            assert line.startswith("WARNING" if said == "$fail lost" else level)


async def test_interaction_that_expired_is_answered_in_the_channel(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake = stage.fake
    async with stage.bot():
        for code in (10062, 50027):
            fault = fake.fault("callback", 404, times=9, code=code)
            used = await fake.slash(stage.channel_id, "buttons")
            told = ("That took too long, so Discord", "Ask again.")
            answer = await stage.hears(*told, after=used)
            assert fault.hits and not answer.only_for, code
            assert f"<@{fake.member.id}>" in answer.content and not answer.mentions
            fault.times = 0


async def test_command_says_which_permission_the_bot_lacks(stage: Stage) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake, here = stage.fake, stage.channel_id
    async with stage.bot():
        for denied, named, place in (
            ("embed_links", "Embed Links", here),
            # Then the member is told elsewhere.
            ("send_messages", "Send Messages", fake.open_dm(fake.member.id).id),
        ):
            await fake.deny_member(here, fake.bot.id, denied)
            said = await stage.says("$bare")
            told = ("I cannot do that here. Ask an admin to give me:", named)
            answer = await stage.hears(*told, channel_id=place, after=said.id)
            assert not answer.embeds, denied
            assert re.search("Error [0-9a-f]{8}$", answer.content)


async def test_command_that_discord_still_shows_but_is_gone_is_answered(
    stage: Stage,
) -> None:
    shutil.copy(PLUGINS / "tease.py", stage.plugins)
    fake = stage.fake
    async with stage.bot() as bot:
        kept = dict(fake.commands)
        bot.app.plugins.switch_off("tease", "as the test wants")
        await fake.wait_for(lambda: "fail" not in fake.commands)
        fake.commands = kept
        answer = await fake.answered(await fake.slash(stage.channel_id, "fail"))
        assert "That command has changed." in answer.text and error_id(answer)


# Did you mean

KNOWN = ["download", "dl", "dlt", "queue", "dlq", "settings", "stats", "help", "ping"]


@pytest.mark.parametrize(
    ("word", "meant"),
    {
        "downlaod": "download",
        "dowload": "download",
        "donwload": "download",
        "downloads": "download",
        "queu": "queue",
        "stat": "stats",
        "setings": "settings",
        "hlep": "help",
        "helpp": "help",
        "pin": "ping",
        # No commands at all.
        "5": "",
        "50k": "",
        "lol": "",
        "king": "",
        "hell": "",
        "cash": "",
        "d": "",
        "": "",
        "http://a": "",
        "__download": "",
        "ｄｏｗｎｌｏａｄ": "",
        "x" * 5000: "",
    }.items(),
)
def test_word_is_taken_for_a_misspelt_command_only_if_it_looks_so(
    word: str, meant: str
) -> None:
    assert misspelt(word, KNOWN) == meant


async def test_unknown_command_is_answered_with_the_one_that_was_meant(
    stage: Stage,
) -> None:
    async with stage.bot():
        for word in ("5", "lol", "LMAO", "$", "100 bucks"):
            await stage.says(f"${word}")
        await stage.says("$Downlaod https://toy.example/x")
        answer = await stage.hears("Did you mean")
        await stage.fake.settle()
        assert answer.content == "Did you mean `$download`?"
        assert stage.said() == [answer]
        asked = await stage.says(f"<@{stage.fake.bot.id}> https://toy.example/x")
        answer = await stage.hears("Did you mean", after=asked.id)
        assert answer.content == "Did you mean `@Boss-Bot download`?"


async def test_command_that_the_member_may_not_use_is_not_what_was_meant(
    stage: Stage,
) -> None:
    fake = stage.fake
    stage.guild_settings(f"[permissions]\ndenied_users = [{fake.member.id}]\n")
    async with stage.bot():
        await stage.says("$downlaod")
        await fake.member_says(stage.channel_id, "$dowload", fake.owner.id)
        await stage.hears("Did you mean")
        assert len(stage.said()) == 1
