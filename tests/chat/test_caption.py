"""What the first message of a post says: the site, the author, the title, the link, the
size, and how it was made to fit."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bossbot_plugins import caption, discord_courier
from discord_support import BotProcess, Stage, link

from bossbot import Job, MediaFile, Message, Platform, Post

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"

LINK = "https://site.example/post/1"
SITE = Platform("site", LINK, LINK, "toy", title="The Site")
FITTED = "1080p to 720p to fit 20 MiB"


def shown(facts: dict[str, Any], platform: Platform | None = SITE, **job: Any) -> str:
    one = Job(id="0123456789", url=LINK, platform="site", facts=facts, **job)
    return " · ".join(caption.caption(one, platform))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"uploader": "Ana", "title": "Hills"}, "Ana · Hills · "),
        ({"uploader": "Ana"}, "Ana · "),
        ({"title": "Hills"}, "Hills · "),
        ({}, ""),
        ({"uploader": "The Site", "title": "the site"}, ""),
        ({"uploader": "Ana", "title": "ana"}, "Ana · "),
        ({"title": " \u200b\n "}, ""),
        ({"title": "one\ntwo\r\n# three"}, "one two \\# three · "),
        ({"title": "\u202egnp.exe\u202c \u2066x\u2069"}, "gnp.exe x · "),
        ({"title": "@everyone <@1> <@&2>"}, "\\@everyone \\<\\@1\\> \\<\\@&2\\> · "),
        ({"title": "[x](https://e.example)"}, "\\[x\\]\\(https:\\/\\/e.example\\) · "),
        ({"title": "**b** ||s|| `c`"}, "\\*\\*b\\*\\* \\|\\|s\\|\\| \\`c\\` · "),
        ({"title": "שלום עולם"}, "שלום עולם · "),
        ({"title": "👩‍🚀 🎉"}, "👩🚀 🎉 · "),
        ({"title": "z" + "\u0301" * 40}, "z" + "\u0301" * 4 + " · "),
        ({"title": "word " * 40}, "word " * 12 + "word… · "),
        ({"title": "x" * 5000}, "x" * 69 + "… · "),
    ],
)
def test_caption_is_one_harmless_line(facts: dict[str, Any], expected: str) -> None:
    assert shown(facts) == f"**The Site** · {expected}[link](<{LINK}>)"


def test_post_without_a_title_is_named_by_its_text_unless_that_is_all() -> None:
    facts = {"text": "Just words. And more."}
    assert "· Just words. And more. ·" in shown(facts, file_count=1)
    assert "Just words" not in shown(facts)


def test_site_without_a_platform_is_its_host() -> None:
    assert shown({}, None).startswith("**site.example** · ")


def test_spoiler_hides_author_and_title_but_not_the_site() -> None:
    options = {"spoiler": True}
    expected = f"**The Site** · ||Ana · Hills|| · ||[link](<{LINK}>)||"
    assert shown({"uploader": "Ana", "title": "Hills"}, options=options) == expected


async def test_caption_gives_way_to_a_text_that_fills_the_message() -> None:
    app: Any = SimpleNamespace(
        plugins=SimpleNamespace(registered=lambda kind: {"site": SITE})
    )
    for length, expected in ((1950, "**The Site** · Hills · "), (1990, "")):
        job = Job(id="0123456789", url=LINK, platform="site", facts={"title": "Hills"})
        text = Message("x" * length)
        message = await caption.decorate_message(job, text, app)
        assert (message or text).content == f"{expected}{'x' * length}"
    job.posts = [Post(1, "", state="sent")]
    assert await caption.decorate_message(job, Message("(2/2)"), app) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("A cat\non a *mat*", "A cat on a *mat*"),
        ("\u202eevil\u202c", "evil"),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1023 + "…"),
        ("😀" * 600, "😀" * 511 + "…"),
        ("\u200b", None),
        ("", None),
    ],
)
def test_description_of_a_file_is_cleaned_and_cut(
    said: str, expected: str | None
) -> None:
    file = MediaFile(Path("a.jpg"), 1, "", "image/jpeg", alt=said)
    assert discord_courier.alt_of(file) == expected


async def test_line_says_how_the_files_of_its_message_were_made_to_fit(
    stage: Stage,
) -> None:
    stage.copy_plugin(PLUGINS / "noted.py", NOTE=FITTED)
    async with stage.bot():
        await stage.says(f"$download {link(*stage.images(11))}")
        first, second = await stage.gets(11)
    assert re.search(rf" · 11 files, [\d.]+ KiB · {FITTED} · \(1/2\)$", first.content)
    assert second.content == f"{FITTED} · (2/2)"


async def test_pictures_keep_their_descriptions_through_a_crash(
    stage: Stage, process: BotProcess
) -> None:
    stage.copy_plugin(PLUGINS / "noted.py", NOTE=FITTED)
    fault = stage.fake.fault("upload", "hang")
    long = stage.alt("long", "😀" * 900)
    steps = [stage.alt("one", "A cat"), stage.image(1), stage.image(2)]
    await process.start()
    await stage.says(f"$download {link(*steps, long, stage.image(3))}")
    await stage.fake.wait_for(lambda: fault.hits)
    await process.kill()
    fault.release()
    await process.start()
    [message] = await stage.gets(3)
    told = [file.description for file in message.files]
    assert told == ["A cat", "", "😀" * 511 + "…"]
    assert message.content.startswith("**toy.example** · [link](<")


async def test_file_that_is_made_of_another_keeps_its_description(
    stage: Stage,
) -> None:
    stage.copy_plugin(PLUGINS / "remade.py")
    alts = [stage.alt(f"alt{number}", f"Picture {number}") for number in (1, 2)]
    steps = [alts[0], stage.image(1), alts[1], stage.image(2), stage.image(3)]
    async with stage.bot():
        await stage.says(f"$download {link(*steps)}")
        [message] = await stage.gets(3)
    told = [file.description for file in message.files]
    assert told == ["", "Picture 2", "Picture 1"]
