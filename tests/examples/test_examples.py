"""The example plugins of docs/plugins.md, as they stand there and as they work."""

import asyncio
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, MakeApp, MakeSettings
from discord_support import Stage, link

from bossbot import BROKEN_CHECK, Accepted, App, Job, Refused

pytest_plugins = ("discord_fixtures",)

HERE = Path(__file__).parent
EXAMPLES = ("bluesky", "grayscale", "hello", "rate_limit")


def paste(stage: Stage, name: str) -> None:
    """Save an example as the owner would."""
    stage.write_plugin(name, (HERE / f"{name}.py").read_text("utf-8"))


async def take(app: App, number: int, user_id: int = 3) -> Accepted | None:
    """A link of a member comes."""
    key = f"{user_id}:{number}"
    return await app.intake(
        Job(
            url=link("wait=gate"),
            guild_id=1,
            channel_id=2,
            user_id=user_id,
            request_key=key,
        )
    )


def first_pixel(image: bytes) -> bytes:
    """Red, green and blue."""
    ffmpeg = ["ffmpeg", "-v", "error", "-i", "-", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    shown = subprocess.run([*ffmpeg, "-"], input=image, capture_output=True, check=True)
    return shown.stdout[:3]


@pytest.mark.parametrize("name", EXAMPLES)
def test_docs_show_the_example_word_for_word(name: str) -> None:
    docs = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    code = (HERE / f"{name}.py").read_text("utf-8")
    assert f"```python\n{code}```" in docs
    assert f"plugins/{name}.py" in docs


def test_every_example_is_tested() -> None:
    assert {path.stem for path in HERE.glob("[!t]*.py")} == {*EXAMPLES}


@pytest.mark.parametrize("page", ["plugins/README.md", "docs/plugins.md"])
async def test_examples_of_a_page_are_on_beside_all_of_ours(
    stage: Stage, page: str
) -> None:
    for path in ROOT.glob("plugins/[!e]*/[!_R]*"):  # engines take long to start
        stage.add_plugin(path.stem)
    text = (ROOT / page).read_text("utf-8")
    examples = re.findall(r'```python\n(""".*?)```', text, re.DOTALL)
    assert examples
    for number, code in enumerate(examples):
        stage.write_plugin(f"example_{number}", code)
    async with stage.bot() as bot:
        plugins = bot.app.plugins.all.values()
        assert {plugin.stem: plugin.off for plugin in plugins if plugin.off} == {}


async def test_platform_takes_its_links_and_the_settings_of_every_platform(
    stage: Stage, make_app: MakeApp, make_settings: MakeSettings
) -> None:
    paste(stage, "bluesky")
    values = {"plugins_dir": stage.plugins, "bluesky__proxy": "http://10.0.0.1:3128"}
    app = make_app(make_settings(**values))
    found = app.router.route("https://bsky.app/profile/nasa.gov/post/3kabc?x=1")
    assert (found.platform, found.engine) == ("bluesky", "gallery-dl")
    platform = app.plugins.registered("platforms")["bluesky"]
    assert platform.proxy == "http://10.0.0.1:3128"


async def test_command_answers_by_both_doors(stage: Stage) -> None:
    paste(stage, "hello")
    async with stage.bot():
        asked = await stage.says("$hello")
        first = await stage.hears("Hello, ", "Links waiting: 0.", after=asked.id)
        await stage.fake.slash(stage.channel_id, "hello", {})
        await stage.hears("Hello, ", "Links waiting: 0.", after=first.id)


async def test_post_processor_changes_photos_and_videos_and_says_so(
    stage: Stage,
) -> None:
    paste(stage, "grayscale")
    async with stage.bot():
        await stage.says(f"$download {link(stage.image())}")
        [message] = await stage.gets(1)
        await stage.hears("Done in")
    [file] = message.files
    red, green, blue = await asyncio.to_thread(first_pixel, file.data)
    assert max(red, green, blue) - min(red, green, blue) < 4, "it is gray"


async def test_rate_limit_refuses_the_next_link_of_one_member(stage: Stage) -> None:
    paste(stage, "rate_limit")
    async with stage.bot() as bot:
        for number in range(5):
            assert await take(bot.app, number)
        with pytest.raises(Refused, match="5 links a minute"):
            await take(bot.app, 5)
        assert await take(bot.app, 0, user_id=4), (
            "another member has a limit of his own"
        )


async def test_rate_limit_is_a_setting_of_each_server(stage: Stage) -> None:
    paste(stage, "rate_limit")
    async with stage.bot() as bot:
        app = bot.app
        model: Any = app.plugins.all["rate_limit"].guild_config
        await app.guilds.set(1, "rate_limit", model, "per_minute", 1)
        assert await take(app, 0)
        with pytest.raises(Refused, match="1 links a minute"):
            await take(app, 1)
        await app.guilds.set(1, "rate_limit", model, "per_minute", 0)
        for number in range(2, 9):
            assert await take(app, number)
        with pytest.raises(Refused, match="per_minute"):
            await app.guilds.set(1, "rate_limit", model, "per_minute", -1)


async def test_rate_limit_survives_a_reload_and_a_restart(stage: Stage) -> None:
    paste(stage, "rate_limit")
    async with stage.bot() as bot:
        for number in range(5):
            assert await take(bot.app, number)
        assert not (await bot.app.reload("rate_limit")).off
        with pytest.raises(Refused, match="5 links a minute"):
            await take(bot.app, 5)
    async with stage.bot() as bot:
        with pytest.raises(Refused, match="5 links a minute"):
            await take(bot.app, 6)


async def test_rate_limit_that_breaks_lets_nobody_pass(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paste(stage, "rate_limit")
    async with stage.bot() as bot:
        one = bot.app.database.one

        async def broken(sql: str, *values: Any) -> Any:
            if "rate_limit" in sql:
                raise sqlite3.OperationalError("no such table: rate_limit")
            return await one(sql, *values)

        with monkeypatch.context() as patch:
            patch.setattr(bot.app.database, "one", broken)
            for number in range(9):
                with pytest.raises(Refused) as refused:
                    await take(bot.app, number)
                assert str(refused.value) == BROKEN_CHECK
        assert await take(bot.app, 9), "and is there when the database is well again"
