"""Posts in the archive of a bot on the fake Discord."""

from collections.abc import Sequence
from typing import Any

from bossbot_plugins._archive import Hit
from discord_support import Stage, link, until
from fake_discord import Message

from bossbot import BossBot, Passage


def make_hit(**fields: Any) -> Hit:
    """A post that was found; the keywords change it."""
    about = {"job_id": "0123456789", "rank": 1, "score": 1.0, "sure": True}
    where = {"guild_id": 7777, "channel_id": 8888, "message_id": 9999, "user_id": 6666}
    what = {"title": "Hut", "uploader": "Ana", "sentence": "Soup.", "kinds": ["text"]}
    texts = {"passages": [Passage("Bread. Soup.")], "platform": "reddit", "url": ""}
    others = {"posted_at": 86400.0, "adult": False}
    return Hit(**{**about, **where, **what, **texts, **others, **fields})


async def post(
    stage: Stage,
    bot: BossBot,
    *texts: str,
    files: Sequence[str] = (),
    channel_id: int = 0,
    words: str = "",
    user_id: int = 0,
) -> list[Message]:
    """Has a member ask for posts with these texts, and the files of these steps or a
    small picture each; returns their messages once they are in the archive. The first line
    of a text is the title, which is another for each."""
    place = channel_id or stage.channel_id
    links, first = [], len(stage.fake.all_messages)
    for number, text in enumerate(texts, first):
        title, _, said = text.partition("\n")
        facts = {"title": title, "text": said, "uploader": "Ana Ruiz"}
        name = f"said{number}"
        step = files[len(links)] if files else stage.image(number % 90 + 1)
        links.append(link(stage.facts(name, **facts), step))
    before = len(stage.posted(place))
    said = f"$dlt {words} {' '.join(links)}"
    await stage.fake.member_says(place, said, user_id or None)
    await stage.gets(before + len(texts), place)
    archive: Any = bot.app.archive

    async def kept() -> bool:
        status = await archive.status(None)
        return bool(status["posts"] >= len(stage_posts(stage)))

    await until(kept)
    posted = stage.posted(place)[before:]
    titles = [text.partition("\n")[0] for text in texts]
    return [next(m for m in posted if title in m.content) for title in titles]


def stage_posts(stage: Stage) -> list[Message]:
    """All of the bot's messages with files."""
    return [
        message
        for message in stage.fake.all_messages.values()
        if message.files and message.author is stage.fake.bot and not message.deleted
    ]
