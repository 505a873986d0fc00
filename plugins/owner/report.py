"""``report``: the details that help to fix a bug, without secrets."""

import argparse
import contextlib
import platform as system
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bossbot_plugins._cookies import hide_values
from bossbot_plugins._programs import find_programs
from bossbot_plugins._reports import ID, clean, lines_on
from bossbot_plugins._walls import standing

import bossbot
from bossbot import App, BossbotError, JobFailed, Subcommand, format_time, hookimpl

PACKAGES = ("discord.py", "aiohttp", "pydantic", "aiosqlite", "pluggy", "pillow")
# Of a job, without its link, its title and whom it is from.
SHOWN = (
    *("status", "cause", "platform", "engine", "attempts", "crashes"),
    *("file_count", "total_bytes", "limit_bytes"),
)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [Subcommand("report", "print the details for a bug report", report, ask)]


def ask(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "id",
        nargs="?",
        default="",
        help="the number of a job or an error, as the bot shows it",
    )


async def report(app: App, args: argparse.Namespace) -> int:
    """Print a report in Markdown; returns 1 if the id is unknown."""
    name = args.id.strip("`# ").lower()
    if name and not ID.fullmatch(name):
        raise BossbotError(
            f"{args.id!r} is not an id. The bot shows an id of 8 or 10 digits and "
            "letters from a to f with each link and error."
        )
    for platform in app.plugins.registered("platforms").values():
        if platform.cookies_file:
            hide_values(platform.cookies_file)
    lines = lines_on(name, app.settings.data_dir / "logs") if name else []
    job = find_job(app, name) if name else {}
    show("Boss-Bot", [f"- {line}" async for line in versions(app)])
    show("Settings that are not the default", changed(app))
    if job:
        show(f"Job {name}", [f"- {key}: {value}" for key, value in job.items()])
    if lines:
        show("Log", ["```text", *lines, "```"])
    hint = "Read it before you post it: titles and texts of a site may be in the log."
    print(hint, file=sys.stderr)
    if name and not job and not lines:
        print(f"There is no record of {name} any more.", file=sys.stderr)
        return 1
    return 0


def show(title: str, lines: Iterable[str]) -> None:
    print(f"### {title}", "", *lines, "", sep="\n")


async def versions(app: App) -> AsyncIterator[str]:
    """The running versions, a line for each."""
    yield f"{bossbot.__version__}, plugin API {bossbot.API}"
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    where = " in a container" if any(mark.exists() for mark in marks) else ""
    yield f"Python {system.python_version()}, {clean(system.platform())}{where}"
    try:
        for engine, (version, days) in (await app.runner.versions()).items():
            yield f"{engine} {version}" + ("" if days is None else f", {days} days old")
    except (JobFailed, OSError) as error:
        yield clean(f"the engines do not answer: {error!r}")
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"
    yield f"programs: {', '.join(sorted(find_programs())) or 'none'}"
    walls = [wall for wall, stands in standing().items() if stands]
    yield f"walls: {', '.join(walls) or 'none'}"
    plugins = app.plugins.all.values()
    own = [f"{p.stem} ({p.origin})" for p in plugins if p.kind == "own"]
    yield f"own plugins: {', '.join(own) or 'none'}"
    for plugin in plugins:
        if plugin.off:
            yield clean(f"{plugin.stem} is off: {plugin.off}")


def changed(app: App) -> list[str]:
    """Settings that are not the default: figures as they are, of texts only that they
    are set."""
    found = [*differing("", app.settings, {"plugins", "discord_token"})]
    for plugin in app.plugins.all.values():
        found += differing(f"plugins.{plugin.stem}.", plugin.config, set())
    return found or ["- none"]


def differing(prefix: str, settings: Any, without: set[str]) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Path):
            default = bossbot.HERE / default  # see ``OwnPath``
        if name not in without and value not in (default, None):
            plain = isinstance(value, (bool, int, float))
            if plain or str(value) != str(default):
                yield f"- {prefix}{name} = {value if plain else '(set)'}"


def find_job(app: App, name: str) -> dict[str, str]:
    """The row of a job in the database, {} if there is none; also while the bot
    runs."""
    path = app.settings.data_dir / "bossbot.db"
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
        database.row_factory = sqlite3.Row
        for table in ("jobs", "history"):
            with contextlib.suppress(sqlite3.Error):
                sql = f"SELECT * FROM {table} WHERE id = ?"
                if row := database.execute(sql, (name,)).fetchone():
                    return {key: shown for key, shown in about(row) if shown}
    return {}


def about(row: sqlite3.Row) -> Iterator[tuple[str, str]]:
    known = row.keys()
    for key in SHOWN:
        if key in known and row[key]:
            yield key, clean(str(row[key]))
    if "detail" in known and row["detail"]:  # what a site said: no Markdown
        yield "detail", "`{}`".format(clean(row["detail"]).replace("`", "'"))
    yield "link", clean(row["url"])
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(row["created_at"]))
    yield "asked for", f"{began} UTC"
    for key, since in (("started_at", "created_at"), ("finished_at", "started_at")):
        if row[key] and row[since]:
            yield f"{since} to {key}", format_time(row[key] - row[since])
