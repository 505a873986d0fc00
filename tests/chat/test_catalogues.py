"""The translations are complete, and every text for members is one of them."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import catalogues
import pytest
from bossbot_plugins._catalogues import load
from bossbot_plugins.help import all_commands, entry_of
from bossbot_plugins.language import LANGUAGES
from discord_support import Stage

import bossbot

pytest_plugins = ("discord_fixtures",)

template = functools.cache(catalogues.template)
PATHS = sorted(catalogues.LOCALE.glob("*.po"))
# Whose texts are all for members.
SPEAKERS = ("discord_courier.py", "platform_router.py", "_refusals.py", "sound_only.py")
# Whose texts are for the log, or for a machine.
SILENT = (
    *("_chat_model.py", "_prompt.py", "_limited_child.py", "_limited_main.py"),
    *(
        "_file.py",
        "_model.py",
        "_scores.py",
        "_ocr.py",
        "describe_files.py",
        "read_pictures.py",
    ),
)
# What looks like a text, and is none.
OTHERS = {
    *("queue list", "queue clear", "queue cancel", "queue retry", "queue move"),
    *("queue purge", "settings view", "settings update"),
    *("archive status", "archive forget"),
    *("privacy show", "privacy forget", "privacy stats"),
    *("an interaction of type ", "not in statistics", "Kind", "Settings"),
    *("broken settings:", "not stored: ", "not posted: ", "the claim was lost"),
    *("413 for a text", "download https://…`", "Authorization", "Bearer "),
    *('<words "exact words">', "sunrise over the sea", "When does the hut open?"),
    *("it is busy", "it said nothing; more answer_tokens may help"),
    "/ask quotes posts in place of an answer",
    *("Files: attached to a message, linked, or dropped", "Files that were posted"),
    "the language model does not answer: ",
    "Check base_url and api_key in [plugins.ask], and that the server runs.",
    *("of base_url and model in [plugins.ask] one is missing", "Set both."),
}


def test_every_language_of_the_setting_has_a_catalogue() -> None:
    assert {"en", *load()} == {*LANGUAGES}
    assert [path.stem for path in PATHS] == sorted(load())


def test_catalogues_are_complete_and_in_step_with_the_code() -> None:
    for path in PATHS:
        assert catalogues.mistakes(path, template()) == [], path.stem


def speakers() -> Iterator[Path]:
    for path in catalogues.sources():
        if path.name in SILENT:
            continue
        owner = path.name == "command_line.py"
        if ("chat" in path.parts and not owner) or path.name in SPEAKERS:
            yield path


@pytest.mark.parametrize("path", [*speakers()], ids=lambda path: path.name)
def test_no_text_for_members_is_without_a_mark(path: Path) -> None:
    found = [line for line in catalogues.unmarked(path)]
    assert [
        x for x in found if ast.literal_eval(x.split(": ", 1)[1]) not in OTHERS
    ] == []


@pytest.mark.parametrize("path", catalogues.sources(), ids=lambda path: path.name)
def test_every_refusal_is_translated(path: Path) -> None:
    assert list(catalogues.plain_refusals(path)) == []


@pytest.mark.parametrize(
    "line",
    [
        'raise Refused("Not here.")',
        'raise Refused(f"{name} is not here.")',
        'raise JobFailed(Cause.GONE, "404", "It is gone.")',
        'raise JobFailed(Cause.GONE, message=f"{name} is gone.")',
    ],
)
def test_refusal_without_a_mark_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "rude.py"
    path.write_text(line)
    assert len(list(catalogues.plain_refusals(path))) == 1


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('await reply(ctx, "That is gone.")', 1),
        ('await reply(ctx, f"{count} files are gone.")', 1),
        ('Button(label="Next")', 1),
        ('await reply(ctx, _("That is gone."))', 0),
        ('logger.info("that is {}", gone)', 0),
    ],
)
def test_text_without_a_mark_is_found(line: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "rude.py"
    path.write_text(f"async def f():\n    {line}\n")
    assert len(list(catalogues.unmarked(path))) == count


def test_mistakes_of_a_translation_are_found(tmp_path: Path) -> None:
    path = tmp_path / "de.po"
    good = (catalogues.LOCALE / "de.po").read_text("utf-8")
    whole = 'msgstr "Gepostet: {size}"'
    assert good.count(whole) == 1
    for bad in ('msgstr ""', 'msgstr "Gepostet: {sizes}"', 'msgstr "Gepostet: {"'):
        text = good.replace(whole, bad)
        path.write_text(text, "utf-8")
        path.with_suffix(".mo").write_bytes(catalogues.as_mo(text.encode(), "de"))
        assert any("Posted: {size}" in x for x in catalogues.mistakes(path, template()))


@pytest.mark.parametrize("language", sorted(load()))
def test_numbers_have_the_plural_forms_of_their_language(language: str) -> None:
    one, many = "{count} link removed.", "{count} links removed."
    said = {count: load()[language].ngettext(one, many, count) for count in (0, 1, 2)}
    alone = {"de": [1], "es": [1], "fr": [0, 1], "pt-BR": [0, 1], "ja": [0, 1, 2]}
    assert [n for n in said if said[n] == said[1]] == alone[language]


def test_text_without_words_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bossbot, "catalogues", load())
    token = bossbot.language.set("de")
    try:
        assert bossbot._("") == ""
    finally:
        bossbot.language.reset(token)


def commands_in(payload: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The commands of each group."""
    yield payload
    for one in payload:
        inner = [o for o in one.get("options", ()) if o["type"] in (1, 2)]
        if inner:
            yield from commands_in(inner)


async def test_discord_gets_names_and_descriptions_in_each_language(
    stage: Stage,
) -> None:
    for name in ("language", "queue", "privacy", "settings", "help", "about", "stats"):
        stage.add_plugin(name)
    async with stage.bot() as bot:
        # So has /help, of menus, too.
        shown = [entry_of(one, Mock(interaction=None)) for one in all_commands(bot)]
        assert {text for entry in shown for text in (entry.text, entry.group)} <= {
            message.id for message in template()
        }
        payload = [*stage.fake.commands.values()]
        groups = list(commands_in(payload))
        [download] = [one for one in payload if one["name"] == "download"]
        assert download["name_localizations"]["fr"] == "télécharger"
        assert download["name_localizations"]["es-419"] == "descargar"
        told = download["description_localizations"]
        assert told["de"].startswith("Lädt herunter")
        assert {*told} == {"de", "es-ES", "es-419", "fr", "ja", "pt-BR"}
        for language in told:
            for group in groups:
                names = [
                    one.get("name_localizations", {}).get(language) or one["name"]
                    for one in group
                    if one.get("type", 1) < 3
                ]
                assert len({*names}) == len(names)
                for one in group:
                    texts = one.get("description_localizations", {})
                    assert len(texts.get(language, "")) <= 100
        [stats] = [one for one in payload if one["name"] == "stats"]
        [where] = stats["options"]
        assert where["choices"][0]["name_localizations"]["de"] == "hier"
        [menu] = [one for one in payload if one["name"] == "Download media"]
        assert menu["name_localizations"]["de"] == "Medien herunterladen"
