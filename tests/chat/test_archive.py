"""The archive of a running bot: what is posted is found, by whom, and until when."""

from typing import Any

import pytest
from discord_support import Stage, link

from bossbot import BossBot, Hit, Query

pytest_plugins = ("discord_fixtures",)


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("archive", "privacy", "history", "queue", "subtitles"):
        stage.add_plugin(name)
    return stage


async def post(
    stage: Stage, name: str, *steps: str, channel_id: int = 0, **facts: Any
) -> int:
    """The id of the message that a link is posted as."""
    there = len(stage.posted(channel_id or None))
    told = stage.facts(name, **facts)
    url = link(told, *(steps or [stage.image()]))
    await stage.says(f"$dl {url}", channel_id or None)
    await stage.gets(there + 1, channel_id or None)
    return stage.posted(channel_id or None)[-1].id


async def find(bot: BossBot, stage: Stage, text: str, **values: Any) -> list[Hit]:
    places = {"guild_id": stage.fake.guild.id, "channels": [stage.channel_id]}
    return await bot.app.archive.search(Query(text=text, **{**places, **values}))


async def test_post_is_found_by_its_words(stage: Stage) -> None:
    async with stage.bot(archive__meaning="off") as bot:
        number = await post(stage, "a", title="A red fox in the snow", uploader="ann")
        await post(stage, "b", title="Sourdough bread", text="How to bake it.")
        await stage.fake.settle()
        [hit] = await find(bot, stage, "foxes and snow")
        assert hit.message_id == number and hit.sure
        assert (hit.title, hit.uploader) == ("A red fox in the snow", "ann")
