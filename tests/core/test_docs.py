"""The documentation says what the code does, where a test can tell."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import settings_page
from babel.messages.pofile import read_po
from conftest import ROOT

from bossbot import SENTENCES, STOP_WITHIN_S, App, Settings

PAGES = [ROOT / "README.md", ROOT / "plugins" / "README.md", *ROOT.glob("docs/*.md")]
SECRET = {"discord_token"}  # it belongs in .env


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """With all of our plugins, and none of the owner's."""
    own = tmp_path_factory.mktemp("plugins")
    app = App(Settings.model_validate({"plugins_dir": own}))
    app.plugins.load()
    return app


def heading(text: str) -> str:
    """A heading as the address of its section."""
    words = re.sub(r"[^\w\- ]", "", text.lower().strip())
    return words.replace(" ", "-")


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def test_ci_runs_the_tests_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    told = re.search(r"-m pip install|-m pytest ([^\n]+)", readme)
    assert told and told[1]
    assert f"-m pytest -q {told[1]}" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name) if name else page
        assert found.exists(), target
        if anchor:
            text = found.read_text("utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert anchor in map(heading, headings), target


def test_settings_page_is_made_from_the_settings(app: App) -> None:
    text = settings_page.PAGE.read_text("utf-8")
    plugins = list(app.plugins.all.values())
    assert text == settings_page.page(plugins), f"run {settings_page.__file__}"


def test_troubleshooting_has_every_sentence_that_a_failure_can_show() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    assert [text for text in SENTENCES.values() if text not in page] == []


def test_troubleshooting_has_every_text_that_sends_somebody_to_the_owner() -> None:
    page = " ".join((ROOT / "docs" / "troubleshooting.md").read_text("utf-8").split())
    catalogue = read_po((ROOT / "plugins" / "chat" / "_locale" / "de.po").open("rb"))
    sends = re.compile("owner can|[Aa]sk an admin|[Aa]sk the bot's owner|log has")
    texts = [text for text in catalogue if text.id and sends.search(str(text.id))]
    assert len(texts) > 15
    for text in texts:
        assert isinstance(text.id, str)
        for fragment in re.split(r"\{[^{}]*\}", text.id):
            assert fragment.strip(" .:") in page, text.id


def said_by_the_code() -> str:
    """Every text in the core and the plugins, with "…" where something is filled in."""
    texts: list[str] = []
    for path in [*ROOT.glob("*.py"), *ROOT.glob("plugins/*/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{[^{}]*\}", "…", node.value))  # the log's
            elif isinstance(node, ast.JoinedStr):
                pieces = (getattr(piece, "value", "…") for piece in node.values)
                filled = (piece if isinstance(piece, str) else "…" for piece in pieces)
                texts.append("".join(filled))
    return "\n".join(" ".join(text.split()) for text in texts)


def quoted_messages(page: str) -> list[str]:
    """What troubleshooting.md says that the bot says: in bold where a paragraph begins,
    and in the table of reasons."""
    messages = []
    for paragraph in re.split(r"\n\n+", page):
        text = " ".join(paragraph.split())
        if text.startswith("**") or "says **" in text or "If **" in text:
            messages += re.findall(r"\*\*(.+?)\*\*(?![`\w])", text)
    messages += re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    return messages


def test_troubleshooting_quotes_only_what_the_bot_says() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = said_by_the_code()
    messages = quoted_messages(page)
    assert len(messages) > 80
    wrong = {
        message: fragment
        for message in messages
        for fragment in message.split("…")
        if fragment.strip(" .") and fragment.strip() not in said
    }
    assert wrong == {}


def plain(value: Any) -> Any:
    """A value as TOML has it."""
    return str(value) if isinstance(value, Path) else value


def test_config_toml_has_every_setting_of_the_core_with_its_default() -> None:
    written = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    written.pop("plugins", None)
    names = Settings.model_fields.keys() - {"plugins"} - SECRET
    assert written.keys() == names
    assert Settings.model_validate(written) == Settings.model_validate({})


def test_config_toml_has_every_setting_of_our_plugins(app: App) -> None:
    text = (ROOT / "config.toml").read_text("utf-8")
    tables = dict(
        re.findall(r"^#? ?\[plugins\.(\w+)\]\n((?:#? ?\S.*\n)*)", text, re.MULTILINE)
    )
    shared = {"cookies_file", "proxy", "sleep_request_s", "options"}
    for plugin in app.plugins.all.values():
        fields = type(plugin.config).model_fields.keys() - shared
        missing = {
            n for n in fields if not re.search(rf"\b{n} =", tables.get(plugin.stem, ""))
        }
        assert not missing, f"[plugins.{plugin.stem}] {missing}"
    written = tomllib.loads(
        re.sub(r"^# (?=\w+ = |\[plugins)", "", text, flags=re.MULTILINE)
    )
    assert not written["plugins"].keys() - app.plugins.all.keys()


def test_no_page_names_a_plugin_that_is_not_there(app: App) -> None:
    there = {path.name for path in ROOT.glob("plugins/*/**/*.py")}
    named = set()
    for page in PAGES:
        text = page.read_text("utf-8")
        named |= set(
            re.findall(
                r"\b(?:parts|engines|platforms|processors|chat|owner)/((?!test_)\w+\.py)",
                text,
            )
        )
    assert named - there == set()


@pytest.mark.parametrize("name", ["bossbot.service", "bossbot-worker@.service"])
def test_unit_for_systemd_is_hardened_and_leaves_the_walls_alone(name: str) -> None:
    unit = (ROOT / "deploy" / name).read_text("utf-8")
    service = dict(
        re.findall(r"^(\w+)=(.*)$", unit.partition("[Service]")[2], re.MULTILINE)
    )
    wanted = {
        "Type": "notify",
        "WatchdogSec": "60",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "read-only",  # which "strict" leaves writable
        "KillMode": "mixed",
        "OOMPolicy": "continue",  # else one download ends the bot
        "CapabilityBoundingSet": "",
    }
    assert wanted.items() <= service.items()
    assert {"ReadWritePaths", "MemoryMax", "TasksMax"} <= service.keys()
    assert int(service["TimeoutStopSec"]) > STOP_WITHIN_S
    # The first stops V8. The second and third hide the children from the bot; the last
    # is made of sets that may lack Landlock.
    harmful = (
        "MemoryDenyWriteExecute",
        "ProtectProc",
        "ProcSubset",
        "SystemCallFilter",
    )
    assert service.keys().isdisjoint(harmful)
