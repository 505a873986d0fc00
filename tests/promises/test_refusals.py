"""Discord's own refusals: what is posted all the same, and what is said."""

from types import SimpleNamespace
from typing import Any

import discord
from bossbot_plugins.download import cannot_post
from discord_support import Stage, link
from fake_discord import Message

from bossbot import format_size

pytest_plugins = ("discord_fixtures",)

CODES = [
    (400, 50083, "archived or locked"),
    (403, 50083, "archived or locked"),
    (403, 160005, "archived or locked"),
    (400, 20009, "explicit content"),
    (403, 50278, "share no server"),
    (404, 10003, "does not exist any more"),
    (403, 50013, "Ask an admin"),
]


async def test_refusal_is_said_in_words(stage: Stage) -> None:
    async with stage.bot():
        for number, (status, code, words) in enumerate(CODES, 1):
            print(status, code)  # shown when it fails
            stage.fake.fault("upload", status, code=code)
            after = (await stage.says(f"$download {link(stage.image())}")).id
            told = ("**Download failed** (permission)", words)
            message = await stage.hears(*told, after=after)
            assert "Something went wrong" not in message.content
            assert stage.requested("upload") == number


async def test_filtered_words_are_left_out_and_the_files_arrive(stage: Stage) -> None:
    step = stage.image()
    async with stage.bot():
        for number, code in enumerate((200000, 240000), 1):
            stage.fake.fault("upload", 400, code=code)
            await stage.says(f"$download {link(step)}")
            message = (await stage.gets(number))[-1]
            assert [file.data for file in message.files] == [stage.bytes_of(step)]
            assert message.content == format_size(len(stage.bytes_of(step))), code
            assert stage.requested("upload") == 2 * number, code


async def test_filter_that_lets_nothing_through_is_named(stage: Stage) -> None:
    filters = [(200000, "AutoMod"), (240000, "harmful links")]
    async with stage.bot():
        for number, (code, words) in enumerate(filters, 1):
            stage.fake.fault("upload", 400, times=2, code=code)
            await stage.says(f"$download {link(stage.image())}")
            await stage.hears("**Download failed** (permission)", words)
            assert stage.requested("upload") == 2 * number, code


async def test_failure_that_its_message_does_not_take_goes_to_the_channel(
    stage: Stage,
) -> None:
    refusals = [(400, 50083), (403, 50083), (404, 10008), (400, 200000)]
    async with stage.bot():
        for number, (status, code) in enumerate([*refusals, (403, 50001), (400, 0)], 1):
            print(status, code)  # shown when it fails
            stage.fake.fault("edit", status, code=code)
            after = (await stage.says(f"$download {link('fail=gone')}")).id
            await stage.hears("**Download failed** (gone)", after=after)
            assert stage.requested("edit") == number


async def test_failure_that_the_channel_does_not_take_goes_to_the_member(
    stage: Stage,
) -> None:
    def told() -> list[Message]:
        return [
            message
            for channel in list(stage.fake.channels.values())
            if channel.recipient
            for message in stage.fake.messages(channel.id, bot_only=True)
            if "**Download failed** (gone)" in message.content
        ]

    async with stage.bot():
        for number, code in enumerate((50083, 200000, 50001, 0), 1):
            print(code)  # shown when it fails
            gate = f"gate{number}"
            url = link(f"wait={gate}", "fail=gone")
            after = (await stage.says(f"$download {url}")).id
            await stage.hears("Download started", after=after)
            edits = stage.fake.fault("edit", 400, times=9, code=code)
            stage.fake.fault("send", 400, times=1, code=code)
            stage.open_gate(gate)
            await stage.fake.wait_for(lambda n=number: len(told()) == n)
            edits.times = edits.hits


async def test_lack_of_sound_is_said_in_the_post(stage: Stage) -> None:
    step = stage.image()
    async with stage.bot():
        await stage.says(f"$download {link(stage.facts('a', mute=True), step)}")
        [message] = await stage.gets(1)
    assert "Without sound" in message.content


def test_thread_of_an_unseen_channel_is_no_traceback() -> None:
    """discord.py finds no parent to take the permissions from."""

    class Orphan:
        guild = SimpleNamespace(me=object())

        def permissions_for(self, member: Any) -> Any:
            raise discord.ClientException("Parent channel not found")

    assert cannot_post(Orphan()).endswith("give me: View Channel.")
