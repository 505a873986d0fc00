"""The archive of a running bot: what is posted is found, by whom, and until when."""

from functools import partial
from typing import Any

import pytest
from discord_support import Stage, link, until

from bossbot import BossBot, Hit, Query

pytest_plugins = ("discord_fixtures",)


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("archive", "privacy", "history", "queue", "subtitles"):
        stage.add_plugin(name)
    return stage


def words_only(stage: Stage, **values: Any) -> Any:
    """A bot without a model."""
    return stage.bot(archive__meaning="off", **values)


async def post(stage: Stage, *steps: str, place: int = 0, **facts: Any) -> int:
    """The id of the message that a link is posted as."""
    before = len(stage.posted(place or None))
    told = stage.facts(f"facts{len(stage.fake.requests)}", **facts)
    await stage.says(f"$dl {link(told, *(steps or [stage.image()]))}", place or None)
    await stage.gets(before + 1, place or None)
    return stage.posted(place or None)[-1].id


async def find(bot: BossBot, stage: Stage, text: str, **values: Any) -> list[Hit]:
    places = {"guild_id": stage.fake.guild.id, "channels": [stage.channel_id]}
    return await bot.app.archive.search(Query(text=text, **{**places, **values}))


async def finds(
    bot: BossBot, stage: Stage, text: str, *ids: int, **values: Any
) -> None:
    """Returns once these messages are found, and nothing else."""

    async def is_so() -> bool:
        hits = await find(bot, stage, text, **values)
        return {hit.message_id for hit in hits} == {*ids}

    await until(is_so)


def stored(stage: Stage) -> bytes:
    """Everything in the archive's files."""
    folder = stage.folder / "data"
    return b"".join(path.read_bytes() for path in folder.glob("archive.db*"))


async def test_post_is_found_by_its_words(stage: Stage) -> None:
    async with words_only(stage) as bot:
        fox = await post(stage, title="A red fox in the snow", uploader="ann")
        await post(stage, title="Sourdough bread", text="How to bake it.")
        await finds(bot, stage, "red foxes in snow", fox)
        [hit] = await find(bot, stage, "red foxes in snow")
        assert hit.sure and (hit.title, hit.uploader) == (
            "A red fox in the snow",
            "ann",
        )
        assert (hit.kinds, hit.user_id) == (["image"], stage.fake.member.id)
        assert hit.picture_url.startswith("http")


@pytest.mark.parametrize("how", ["message", "bulk", "channel", "server"])
async def test_what_is_deleted_is_forgotten_to_the_last_byte(
    stage: Stage, how: str
) -> None:
    fake = stage.fake
    async with words_only(stage) as bot:
        place = await (fake.add_guild if how == "server" else fake.add_channel)("away")
        assert place.guild
        where = {"channels": [place.id], "guild_id": place.guild.id}
        kept = await post(stage, title="Quetzal feathers")
        gone = await post(stage, place=place.id, title="Xylophonist", text="a tune")
        await finds(bot, stage, "xylophonist", gone, **where)
        words = (b"Xylophonist", b"xylo", b"a tune")
        assert all(word in stored(stage) for word in words)
        if how == "message":
            await fake.delete_message(gone)
        elif how == "bulk":
            await fake.delete_messages(place.id)
        elif how == "channel":
            await fake.delete_channel(place.id)
        else:
            await fake.remove_bot(place.guild.id)
        await until(partial(is_without, stage, *words), 2)
        assert await find(bot, stage, "xylophonist", **where) == []
        await finds(bot, stage, "quetzal", kept)


async def is_without(stage: Stage, *words: bytes) -> bool:
    text = stored(stage)
    return not any(word in text for word in words)
