"""Writes docs/settings.md from the settings' own models.

    python tests/tools/settings_page.py            write the page
    python tests/tools/settings_page.py --check    exit with 1 if it is out of date

A test compares the page with what ``page()`` returns.
"""

import sys
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from loguru import logger
from pydantic import BaseModel, ByteSize, SecretStr

from bossbot import SHELVES, App, PlatformConfig, Plugin, Settings, format_size

COMMON = PlatformConfig.model_fields
PAGE = ROOT / "docs" / "settings.md"
INTRO = """\
# Settings

<!-- Made by tests/tools/settings_page.py from the code. Change the code, not this page. -->

Your own values go into one of these places. The first one that has a value wins:

1. the environment: `BOSS_BOT_MAX_ITEMS=20`
2. `.env` in the bot's folder, with the same lines: the place for the token and for cookies
3. `data/config.toml`, in the form of `config.toml`: the place for everything else
4. [`config.toml`](../config.toml), which comes with the bot; leave it as it is

In the environment and in `.env`, lists and tables are JSON (`BOSS_BOT_DISABLED_PLUGINS=["tiktok"]`), and a plugin's setting is
`BOSS_BOT_PLUGINS__NAME__KEY`. Sizes have a unit (`"50MiB"`), keys that end in `_s` hold seconds, and paths start at the bot's
folder. If there is a mistake, the bot names the file and the line, suggests a correction, and does not start. A mistake in
a plugin's table switches that plugin off, and the log has the reason; if that plugin is a part of the bot
(`[plugins.sqlite_queue]`, for example), the bot does not start. Changes take effect after a restart.
"""
GUILDS = """\
## Settings of each server

Members who may manage the server change these with [`/settings update`](commands.md#settings-of-the-server). They are kept in
`data/guilds/{server id}.toml`, in a table for each plugin, and count for links that come after a change; a change in the file counts at
once, too. A direct message has the server id 0. Each change by a command is a line in `data/logs/audit.jsonl`. If a file has a mistake,
its last good state (a copy is in `data/guilds/last_good/`) counts until the mistake is corrected, and the owner gets a direct message.
"""
NO_GUILDS = "No plugin that comes with the bot has any; plugins of your own can.\n"
SHELF_TITLES = {
    "parts": "Parts",
    "engines": "Engines",
    "platforms": "Platforms",
    "processors": "Post-processors",
    "chat": "Members' commands and messages",
    "owner": "The owner's plugins",
}


def load_plugins() -> list[Plugin]:
    """Every plugin that comes with the bot, by name; exits when one is off."""
    logger.remove()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            plugins_dir=Path(folder),  # the owner's plugins are not for this page
            data_dir=Path(folder),
            allow_writable_plugins=True,
        )
        app = App(settings)
        app.plugins.load()
    plugins = list(app.plugins.all.values())
    if off := [f"{plugin.stem}: {plugin.off}" for plugin in plugins if plugin.off]:
        sys.exit("These plugins are off:\n" + "\n".join(off))
    return plugins


def page(plugins: list[Plugin]) -> str:
    """The text of docs/settings.md."""
    sections = [INTRO, "## The bot\n", table(Settings, skip=("plugins",))]
    for shelf in SHELVES:
        shown = [p for p in plugins if p.kind == shelf and type(p.config).model_fields]
        if shown:
            sections.append(f"## {SHELF_TITLES[shelf]}\n")
        for plugin in shown:
            sections.append(heading(plugin))
            sections.append(table(type(plugin.config)))
    guilds = [plugin for plugin in plugins if plugin.guild_config.model_fields]
    sections.append(GUILDS)
    sections += [NO_GUILDS] if not guilds else []
    for plugin in guilds:
        sections += [heading(plugin, plugins_table=False), table(plugin.guild_config)]
    return "\n".join(sections)


def heading(plugin: Plugin, plugins_table: bool = True) -> str:
    """The heading of a plugin's table, and the first sentence of its docstring."""
    module = sys.modules[f"bossbot_plugins.{plugin.stem}"]
    about = (module.__doc__ or "").strip().partition("\n\n")[0]
    name = f"plugins.{plugin.stem}" if plugins_table else plugin.stem
    return f"### `[{name}]`\n\n{' '.join(about.split())}\n"


def table(model: type[BaseModel], skip: tuple[str, ...] = ()) -> str:
    """A row for each field of a model: key, default, description."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    rows += [row for name, row in fields(model) if name not in skip]
    return "\n".join(rows) + "\n"


def fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Each field's name and row, those that every platform has at the end."""
    inherited = [name for name in model.model_fields if name in COMMON]
    own = [name for name in model.model_fields if name not in COMMON]
    for name in [*own, *inherited]:
        field = model.model_fields[name]
        value = field.get_default(call_default_factory=True, validated_data={})
        shown = default(value)
        words = (field.description or "").replace("|", "\\|")
        yield name, f"| `{name}` | {shown} | {words} |"


def default(value: Any) -> str:
    """A default as it stands in a TOML file; "not set" for None."""
    if value is None:
        return "not set"
    if isinstance(value, BaseModel):
        return "a table"
    return f"`{toml(value)}`"


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return toml(value.value)
    if isinstance(value, ByteSize):
        return f'"{format_size(value).replace(" ", "")}"'
    if isinstance(value, str | Path):
        return f'"{value}"'
    if isinstance(value, SecretStr):
        return toml(value.get_secret_value())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        pairs = (f"{key} = {toml(inside)}" for key, inside in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def main() -> int:
    text = page(load_plugins())
    if "--check" in sys.argv[1:]:
        if PAGE.is_file() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"{PAGE} is out of date. Run: python {Path(__file__).name}")
        return 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
