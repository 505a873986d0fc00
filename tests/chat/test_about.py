"""/ping and /about."""

import re

import pytest
from conftest import ROOT
from discord_support import Stage

pytest_plugins = ("discord_fixtures",)


async def test_ping_tells_how_long_an_answer_and_the_gateway_take(
    stage: Stage,
) -> None:
    stage.add_plugin("about")
    form = r"Pong! Answer: \d+ ms( · gateway: \d+ ms)?"
    async with stage.bot():
        said = await stage.says("$ping")
        answer = await stage.hears("Pong! Answer: ", after=said.id)
        assert re.fullmatch(form, answer.content)
        used = await stage.fake.slash(stage.channel_id, "ping")
        answer = await stage.hears("Pong! Answer: ", after=used)
        assert re.fullmatch(form, answer.content)


async def test_all_plugins_of_the_repository_run_together_and_about_tells_the_versions(
    stage: Stage,
) -> None:
    import gallery_dl.version
    import yt_dlp.version

    stage.ours = ROOT / "plugins"
    url = "https://docs.example/boss-bot"
    async with stage.bot(about__docs_url=url) as bot:
        await stage.says("$download ftp://toy.example/")
        await stage.hears("Invalid URL")
        await stage.fake.slash(stage.channel_id, "download", {"url": "nonsense"})
        await stage.hears("Invalid URL", "nonsense")
        assert not [one for one in bot.app.plugins.all.values() if one.off]
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
            assert word not in shown, "nothing of the machine"


def test_docs_url_must_be_a_link(stage: Stage) -> None:
    stage.add_plugin("about")
    with pytest.raises(AssertionError):
        stage.app(about__docs_url="javascript:alert(1)")
