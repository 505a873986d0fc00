"""In which language members are answered."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins._catalogues import FOLDER, closest, load
from bossbot_plugins.language import LANGUAGES
from discord_support import Stage, job_at, link

import bossbot
from bossbot import Status

pytest_plugins = ("discord_fixtures",)

PLUGINS = Path(__file__).parent / "plugins"


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("en-US", "en"),
        ("en-GB", "en"),
        ("de", "de"),
        ("es-ES", "es"),
        ("es-419", "es"),
        ("pt-BR", "pt-BR"),
        ("ja", "ja"),
        ("fr", "fr"),
        ("tr", "en"),
        ("zh-CN", "en"),
    ],
)
def test_every_locale_of_discord_has_a_language(locale: str, language: str) -> None:
    assert closest(locale, LANGUAGES) == language


@pytest.mark.parametrize("content", [None, b"", b"no catalogue", "half"], ids=str)
def test_language_that_cannot_be_read_is_english(
    tmp_path: Path, logged: list[str], content: Any
) -> None:
    good = (FOLDER / "de.mo").read_bytes()
    path = tmp_path / "de.mo"
    path.write_bytes(good)
    found = load(tmp_path)["de"]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(good[: len(good) // 2] if content == "half" else content)
    assert found.gettext("Cancel") == found.pgettext("name", "Cancel") == "Cancel"
    assert found.ngettext("a", "b", 2) == "b"
    assert len([line for line in logged if "Restore it" in line]) == 1


async def set_language(stage: Stage, app: bossbot.App, value: str) -> None:
    model: Any = app.plugins.all["language"].guild_config
    await app.guilds.set(stage.fake.guild.id, "language", model, "language", value)


async def test_refusal_is_in_the_server_s_language(stage: Stage) -> None:
    fake = stage.fake
    stage.add_plugin("language")
    async with stage.bot() as bot:
        await set_language(stage, bot.app, "fr")
        model: Any = bot.app.plugins.all["permissions"].guild_config
        denied = [fake.member.id]
        await bot.app.guilds.set(
            fake.guild.id, "permissions", model, "denied_users", denied
        )
        said = await stage.says(f"$download {link(stage.image())}")
        options = {"url": "https://a.example"}
        used = await fake.slash(stage.channel_id, "download", options)
        for asked in (said.id, used):
            told = "Tu ne peux pas utiliser ce bot sur ce serveur."
            await stage.hears(told, after=asked)


async def test_job_and_what_works_on_it_have_the_server_s_language(
    stage: Stage,
) -> None:
    other = await stage.fake.add_guild("Other")
    assert other.guild and other.guild.locale == "en-US"
    direct = stage.fake.open_dm(stage.fake.member.id)
    stage.fake.guild.locale = "de"
    stage.add_plugin("language")
    shutil.copy(PLUGINS / "greeting.py", stage.plugins)
    said = {"en": "Cancelled.", "de": "Abgebrochen.", "pt-BR": "Cancelado."}
    async with stage.bot(download__direct_messages=True) as bot:
        for setting, place, language in (
            ("auto", other.id, "en"),
            ("pt-BR", stage.channel_id, "pt-BR"),
            ("auto", stage.channel_id, "de"),
            ("auto", direct.id, "en"),  # there is no server
        ):
            await set_language(stage, bot.app, setting)
            asked = await stage.says(f"$download {link(*stage.images(2))}", place)
            shown = (said[language], "toy.example")
            post = await stage.hears(*shown, channel_id=place, after=asked.id)
            assert post.content.endswith(said[language]), (setting, language)
            *_, job = await bot.app.queue.list()
            assert job.language == language
            await job_at(bot, job.id, Status.COMPLETED)
            # So have hooks that hear of the job.
            assert await bot.app.facts.get("queued") == said[language]
            if language == "de":
                assert " · [Link](<https://toy.example/" in post.content
                assert " · 2 Dateien, " in post.content
        await set_language(stage, bot.app, "ja")
        await stage.says("$download https://127.0.0.1:9/x.jpg")
        await stage.hears("**ダウンロードに失敗しました**", "。")
