"""/ping and /about."""

import re

import pytest
from discord_support import Stage

pytest_plugins = ("discord_fixtures",)


@pytest.mark.parametrize("door", ["$", "/"])
async def test_ping_tells_how_long_an_answer_and_the_gateway_take(
    stage: Stage, door: str
) -> None:
    stage.add_plugin("about")
    async with stage.bot():
        if door == "$":
            await stage.says("$ping")
        else:
            await stage.fake.slash(stage.channel_id, "ping")
        answer = await stage.hears("Pong! Answer: ")
    form = r"Pong! Answer: \d+ ms( · gateway: \d+ ms)?"
    assert re.fullmatch(form, answer.content)


async def test_about_tells_the_versions_and_nothing_of_the_machine(
    stage: Stage,
) -> None:
    import gallery_dl.version
    import yt_dlp.version

    for name in ("about", "gallery_dl", "yt_dlp"):
        stage.add_plugin(name)
    url = "https://docs.example/boss-bot"
    async with stage.bot(about__docs_url=url):
        asked = await stage.fake.slash(stage.channel_id, "about")
        answer = await stage.fake.answered(asked)
        assert answer.only_for is stage.fake.member
        text = answer.text
        assert f"gallery-dl {gallery_dl.version.__version__}" in text
        assert f"yt-dlp {yt_dlp.version.__version__}" in text
        assert "Boss-Bot 1.0.0" in text and url in text
        assert re.search(r"Running for\n\d", text) and "Servers\n1" in text
        for word in ("python", "linux", "/", str(stage.folder), "discord.py"):
            shown = re.sub(r"https://\S+|`/help`", "", text.lower())
            assert word not in shown


def test_docs_url_must_be_a_link(stage: Stage) -> None:
    stage.add_plugin("about")
    with pytest.raises(AssertionError):
        stage.app(about__docs_url="javascript:alert(1)")
