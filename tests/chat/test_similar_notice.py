"""An earlier post that looks the same is named under a new one, where a server wants it."""

import asyncio
import random

import media
import pytest
from archive_support import post
from bossbot_plugins._alike import ALIKE, Look, distance, read_look
from discord_support import Stage, module, until
from fake_discord import Message
from PIL import Image, ImageDraw

from bossbot import BossBot, Job

pytest_plugins = ("discord_fixtures",)

NOTICE = "Something like this was posted "


@pytest.fixture
def stage(stage: Stage) -> Stage:
    for name in ("archive", "similar_notice"):
        stage.add_plugin(name)
    stage.guild_settings("[similar_notice]\nsimilar_notice = true\n")
    return stage


def picture(seed: int) -> Image.Image:
    """Soft spots, others for each seed."""
    dots = Image.new("L", (8, 6))
    dots.putdata(random.Random(seed).choices(range(256), k=48))
    return dots.resize((320, 240), Image.Resampling.BICUBIC)


def save(stage: Stage, image: Image.Image, name: str, **how: int) -> str:
    """The step that downloads a picture."""
    image.save(stage.media / name, **how)
    return f"file={name}"


async def looked_at(bot: BossBot, posts: int) -> None:
    """Returns once so many posts have been compared."""

    async def all_of_them() -> bool:
        sql = "SELECT count(DISTINCT job_id) FROM similar_notice"
        row = await bot.app.database.one(sql)
        return bool(row and row[0] >= posts)

    await until(all_of_them)


def notices(stage: Stage, channel_id: int | None = None) -> list[Message]:
    return [one for one in stage.said(channel_id) if NOTICE in one.text]


def link_to(message: Message) -> str:
    guild = message.channel.guild
    assert guild
    return f"https://discord.com/channels/{guild.id}/{message.channel.id}/{message.id}"


async def test_the_same_picture_or_video_is_named_with_its_link(stage: Stage) -> None:
    fake, spots = stage.fake, picture(1)
    small = spots.resize((200, 150))
    first = save(stage, spots, "spots.png")
    again = save(stage, small, "small.jpg", quality=30)
    save(stage, picture(3), "frame.png")
    still, rate = "loop=loop=9:size=1,format=yuv420p", ("-r", "10")
    outputs = {
        "clip.mp4": ("-vf", still, *rate),
        "shrunk.mp4": ("-vf", f"{still},scale=96:-2", *rate, "-crf", "40"),
    }
    frame = ["-i", str(stage.media / "frame.png")]
    clip, shrunk = media.made_of(frame, stage.media, outputs)
    async with stage.bot(archive__meaning="off") as bot:
        (old,) = await post(stage, bot, "Spots", files=[first])
        (film,) = await post(stage, bot, "A film", files=[f"file={clip.name}"])
        await looked_at(bot, 2)
        assert not notices(stage)
        (dots,) = await post(stage, bot, "Dots", files=[again])
        told = await stage.hears(NOTICE, link_to(old))
        assert told.replied_to is dots
        assert not told.mentions and told.content.startswith("-# ")
        (new,) = await post(stage, bot, "Moving", files=[f"file={shrunk.name}"])
        assert (await stage.hears(NOTICE, link_to(film))).replied_to is new
        # Discord does not have it any more, and says so only when it is asked.
        fake.all_messages[old.id].deleted = True
        (new,) = await post(stage, bot, "Dots again", files=[first])
        told = await stage.hears(NOTICE, link_to(dots), after=new.id)
        assert told.replied_to is new

        async def noted() -> bool:  # so that it is deleted with what it answers
            sql = "SELECT posts FROM similar_notice WHERE message_id = ?"
            row = await bot.app.database.one(sql, new.id)
            return bool(row and str(told.id) in row["posts"])

        await until(noted)
        await fake.delete_message(film.id)

        async def forgotten() -> bool:
            sql = "SELECT 1 FROM similar_notice WHERE message_id IN (?, ?)"
            return not await bot.app.database.one(sql, film.id, old.id)

        await until(forgotten)


async def test_what_differs_a_little_is_the_same_only_if_its_words_are(
    stage: Stage,
) -> None:
    spots = picture(1)
    marked = spots.copy()
    ImageDraw.Draw(marked).rectangle((200, 170, 320, 240), fill=255)
    first, second = save(stage, spots, "spots.png"), save(stage, marked, "marked.png")
    async with stage.bot(archive__meaning="off") as bot:
        await post(stage, bot, "Spots by the sea in summer", files=[first])
        await post(stage, bot, "When the boss says hello", files=[second])
        await looked_at(bot, 2)
        assert not notices(stage)
        third = save(stage, marked, "marked.jpg", quality=50)
        database = bot.app.database
        rows = await database.all("SELECT look FROM similar_notice WHERE number = 1")
        looks, alike = [read_look(rows[0]["look"])], module("similar_notice").alike
        job = Job(id="", url="", guild_id=stage.fake.guild.id)
        assert len(await alike(bot.app, job, looks)) == 2
        assert await alike(bot.app, Job(id="", url="", guild_id=7), looks) == []
        old = "UPDATE similar_notice SET at_s = at_s - 91 * 86400 WHERE number = 2"
        await database.all(old)
        assert len(await alike(bot.app, job, looks)) == 1
        await database.all("DELETE FROM similar_notice WHERE number > 1")
        await post(stage, bot, "Summer spots by the sea", files=[third])
        await stage.hears(NOTICE)


async def test_no_channel_is_named_that_the_readers_may_not_read(stage: Stage) -> None:
    fake = stage.fake
    fake.guild.roles[0].permissions.add("administrator")  # the bot's role
    closed = await fake.add_channel("staff")
    await fake.deny(closed.id, "view_channel")
    step = save(stage, picture(1), "spots.png")
    inside = {"files": [step], "channel_id": closed.id, "user_id": fake.owner.id}
    async with stage.bot(archive__meaning="off") as bot:
        await post(stage, bot, "Staff spots", **inside)
        await looked_at(bot, 1)
        await post(stage, bot, "Spots", files=[step])
        await looked_at(bot, 2)
        await post(stage, bot, "Spots for staff", **inside)

        def told() -> list[Message]:
            found = fake.messages(closed.id, bot_only=True)
            return [one for one in found if NOTICE in one.text]

        await fake.wait_for(told)
        assert not notices(stage)


async def test_nothing_is_looked_at_where_nobody_wants_that(stage: Stage) -> None:
    stage.guild_settings("")
    step = save(stage, picture(1), "spots.png")
    async with stage.bot(archive__meaning="off") as bot:
        posted = module("similar_notice").posted = asyncio.Queue()
        await post(stage, bot, "Spots", files=[step])
        await stage.fake.settle()
        assert posted.empty()
        stage.guild_settings("[similar_notice]\nsimilar_notice = true\n")
        await post(stage, bot, "Dots", files=[step])
        job = await asyncio.wait_for(posted.get(), 60)
        assert job.title == "Dots"
        notice = module("similar_notice")
        job.options["again"] = True  # who clicks on that knows it
        await notice.job_changed(job, notice.GuildConfig(similar_notice=True))
        assert posted.empty()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Look((0,)), Look((0,)), True),
        (Look((0,)), Look((2**28 - 1,)), True),
        (Look((0,)), Look((2**29 - 1,)), False),
        (Look((0, 0, 0), 10), Look((0, 0, 2**29 - 1), 10), False),
        (Look((0, 0, 0), 10), Look((0, 0, 1), 10.5), True),
        (Look((0, 0, 0), 10), Look((0, 0, 0), 12), False),
        (Look((0,)), Look((0, 0, 0), 1), False),
    ],
)
def test_looks_are_compared_moment_by_moment(
    one: Look, other: Look, same: bool
) -> None:
    assert (distance(one, other) <= ALIKE) is same
    assert read_look(str(one)) == one
