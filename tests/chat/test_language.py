"""In which language members are answered."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins._catalogues import FOLDER, closest, load
from bossbot_plugins.language import LANGUAGES
from discord_support import Stage, job_when, link

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


@pytest.mark.parametrize("door", ["$", "/"])
async def test_refusal_is_in_the_server_s_language(stage: Stage, door: str) -> None:
    fake = stage.fake
    stage.add_plugin("language")
    async with stage.bot() as bot:
        await set_language(stage, bot.app, "fr")
        model: Any = bot.app.plugins.all["permissions"].guild_config
        denied = [fake.member.id]
        await bot.app.guilds.set(
            fake.guild.id, "permissions", model, "denied_users", denied
        )
        if door == "$":
            await stage.says(f"$download {link(stage.image())}")
        else:
            await fake.slash(stage.channel_id, "download", {"url": "https://a.example"})
        await stage.hears("Tu ne peux pas utiliser ce bot sur ce serveur.")


@pytest.mark.parametrize(
    ("setting", "locale", "language"),
    [("auto", "de", "de"), ("auto", "en-US", "en"), ("pt-BR", "de", "pt-BR")],
)
async def test_job_and_what_works_on_it_have_the_server_s_language(
    stage: Stage, setting: str, locale: str, language: str
) -> None:
    stage.fake.guild.locale = locale
    stage.add_plugin("language")
    shutil.copy(PLUGINS / "greeting.py", stage.plugins)
    async with stage.bot() as bot:
        await set_language(stage, bot.app, setting)
        await stage.says(f"$download {link(stage.image())}")
        [post] = await stage.gets(1)
        said = {"en": "Cancelled.", "de": "Abgebrochen.", "pt-BR": "Cancelado."}
        assert post.content.endswith(said[language])
        [job] = await bot.app.queue.list()
        assert job.language == language


async def test_hooks_that_hear_of_a_job_have_its_language(stage: Stage) -> None:
    stage.add_plugin("language")
    shutil.copy(PLUGINS / "greeting.py", stage.plugins)
    async with stage.bot() as bot:
        await set_language(stage, bot.app, "de")
        await stage.says(f"$download {link(stage.image())}")
        await stage.gets(1)
        [job] = await bot.app.queue.list()
        await job_when(bot, job.id, lambda job: job.status is Status.COMPLETED)
        assert await bot.app.facts.get("queued") == "Abgebrochen."


async def test_status_message_and_post_are_in_the_job_s_language(stage: Stage) -> None:
    stage.add_plugin("language")
    async with stage.bot() as bot:
        await set_language(stage, bot.app, "de")
        await stage.says(f"$download {link(*stage.images(2))}")
        [post] = await stage.gets(2)
        assert " · [Link](<https://toy.example/" in post.content
        assert " · 2 Dateien, " in post.content
        [job] = await bot.app.queue.list()
        await job_when(bot, job.id, lambda job: job.status is Status.COMPLETED)


async def test_failure_is_told_in_the_job_s_language(stage: Stage) -> None:
    stage.add_plugin("language")
    async with stage.bot() as bot:
        await set_language(stage, bot.app, "ja")
        await stage.says("$download https://127.0.0.1:9/x.jpg")
        await stage.hears("**ダウンロードに失敗しました**", "。")


async def test_texts_are_english_where_there_is_no_server(stage: Stage) -> None:
    stage.add_plugin("language")
    async with stage.bot(download__direct_messages=True) as bot:
        channel = stage.fake.open_dm(stage.fake.member.id)
        await stage.says(f"$download {link(stage.image())}", channel.id)
        await stage.gets(1, channel.id)
        [job] = await bot.app.queue.list()
        assert job.language == "en"
