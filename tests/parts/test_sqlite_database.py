"""The SQLite file: its lock, its damage, the plugins' tables, transactions."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bossbot_plugins.sqlite_database import LAYOUT, split_script
from conftest import (
    ROOT,
    SUPPORT_PLUGINS,
    MakeApp,
    MakeSettings,
    WithTables,
    our_plugins,
)
from discord_support import module
from sqlite_support import Disk, locked_by_another_process, longest_pause_s, on_disk

from bossbot import App, Database, PluginError, StartError

Open = Callable[..., Awaitable[App]]


@pytest.fixture
async def open_app(
    make_settings: MakeSettings, make_app: MakeApp
) -> AsyncIterator[Open]:
    """Opens the database of an app that has little else; what was open before is
    closed, as at a restart."""
    opened: list[App] = []

    async def open_app(*more: str) -> App:
        while opened:
            await opened.pop().stop()
        ours = our_plugins("sqlite_database", "sqlite_facts", *more)
        app = make_app(make_settings(), ours)
        opened.append(app)
        await app.database.start()
        return app

    yield open_app
    while opened:
        await opened.pop().stop()


@pytest.fixture
async def app(open_app: Open) -> App:
    return await open_app()


def path_of(app: App) -> Path:
    path: Path = app.database.path  # type: ignore[attr-defined]
    return path


async def tables(app: App) -> set[str]:
    sql = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
    return {row[0] for row in await app.database.all(sql)}


async def versions(app: App) -> dict[str, int]:
    rows = await app.database.all("SELECT plugin, version FROM migrations")
    return {row["plugin"]: row["version"] for row in rows}


# One process


OWN = """
import asyncio, sys
from pathlib import Path
import bossbot

async def main():
    data, own, ours = map(Path, sys.argv[1:])
    own.mkdir(exist_ok=True)
    app = bossbot.App(bossbot.Settings(data_dir=data, plugins_dir=own), ours)
    app.plugins.load()
    await app.database.start()

asyncio.run(main())
"""


def own(data: Path, work: Path, code: str = OWN) -> "subprocess.Popen[str]":
    """A process that opens the database of a data folder."""
    ours = our_plugins("sqlite_database")
    return subprocess.Popen(
        [sys.executable, "-uc", code, data, work / "own", ours],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_cannot_own_the_data_folder(
    make_settings: MakeSettings, make_app: MakeApp, tmp_path: Path
) -> None:
    data = make_settings().data_dir
    data.mkdir()
    code = OWN.replace(
        "database.start()", "database.start()\n    print(1)\n    input()"
    )
    ours = our_plugins("sqlite_database")
    app = make_app(make_settings(), ours)
    with own(data, tmp_path, code) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(StartError) as caught:
            await app.database.start()
        assert f"process {other.pid}" in str(caught.value)
        assert str(data) in str(caught.value)
        assert "data_dir" in str(caught.value)
        other.kill()
    await app.database.start()  # what a killed process held is free
    assert await tables(app) >= {"migrations"}


async def test_lock_that_cannot_be_taken_says_which_file(
    make_settings: MakeSettings, make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(make_settings(), our_plugins("sqlite_database"))
    lock = app.settings.data_dir / ".locks" / "bossbot.lock"
    lock.mkdir()  # as one that belongs to another user
    with pytest.raises(StartError) as caught:
        await app.database.start()
    assert str(lock) in str(caught.value) and "Another" not in str(caught.value)
    lock.rmdir()
    await app.database.start()


# The file


async def test_database_of_another_layout_is_left_alone(open_app: Open) -> None:
    app = await open_app()
    path = path_of(app)
    await app.facts.set("a", "b")
    for layout, remedy in ((LAYOUT + 1, "Update the bot"), (LAYOUT - 1, "Move it")):
        await app.stop()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version={layout}")
        with pytest.raises(StartError, match=remedy) as caught:
            await open_app()
        assert str(path) in str(caught.value)
        assert on_disk(path, "SELECT * FROM facts") == [("a", "b")]
        assert on_disk(path, "PRAGMA user_version") == [(layout,)]


@pytest.mark.parametrize(
    "damage", ["no database at all", "torn page", "torn page after a kill"]
)
async def test_damaged_database_is_kept_aside(open_app: Open, damage: str) -> None:
    app = await open_app()
    path = path_of(app)
    async with app.database.transaction() as connection:
        rows = [(str(number), "x" * 100) for number in range(2000)]
        await connection.executemany("INSERT INTO facts VALUES (?, ?)", rows)
    await app.stop()
    content = path.read_bytes()
    if damage == "torn page":  # shows at once, as the facts' root is there
        content = content[:8192] + random.Random(1).randbytes(65536) + content[73728:]
    elif damage == "torn page after a kill":  # shows when the whole file is read
        content = content[:-8192] + random.Random(1).randbytes(8192)
        path.with_name("bossbot.db-wal").touch()
    else:
        content = b"no database" * 1000
    path.write_bytes(content)
    with pytest.raises(StartError, match="damaged") as caught:
        await open_app()
    (aside,) = [p for p in path.parent.glob("*damaged*") if p.suffix != ".db-wal"]
    assert aside.name in str(caught.value) and aside.read_bytes() == content
    assert "backup" in str(caught.value)
    app = await open_app()  # the next start has an empty one
    assert await app.database.all("SELECT * FROM facts") == []
    assert aside.read_bytes() == content


EACH = """\
for data in sorted(Path(sys.argv[1]).iterdir()):
    sys.argv[1] = data
    try:
        asyncio.run(main())
    except bossbot.StartError as error:
        print(error, flush=True)
"""


def test_database_that_cannot_be_used_leaves_no_thread_that_keeps_the_process(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / "data" / name / "bossbot.db" for name in "abc"]
    for path in paths:
        path.parent.mkdir(parents=True)
    paths[0].mkdir()
    paths[1].write_text("damaged" * 1000)
    with contextlib.closing(sqlite3.connect(paths[2])) as connection:
        connection.execute("PRAGMA user_version=999")
    code = OWN.replace("asyncio.run(main())\n", EACH)
    with own(tmp_path / "data", tmp_path, code) as process:
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    lines = said.splitlines()
    assert len(lines) == 3, lines
    assert all(str(path) in line for path, line in zip(paths, lines, strict=True))
    assert "has layout 999" in lines[2]


async def test_stopped_database_says_so_and_starts_again(app: App) -> None:
    await app.facts.set("a", "b")
    await app.database.stop()
    await app.database.stop()
    for use in (app.database.all("SELECT 1"), app.facts.get("not read yet")):
        with pytest.raises(sqlite3.Error, match="closed"):
            await use
    await app.database.start()
    (row,) = await app.database.all("SELECT key, value FROM facts")
    assert tuple(row) == ("a", "b")


# The plugins' tables


async def test_each_plugin_has_its_tables_and_its_version(
    open_app: Open, with_tables: WithTables
) -> None:
    with_tables("shop", "CREATE TABLE shop (x)", "CREATE TABLE shop_more (x)")
    with_tables("empty")
    app = await open_app()
    assert await tables(app) == {"migrations", "facts", "shop", "shop_more"}
    assert await versions(app) == {"sqlite_facts": 1, "shop": 2}


async def test_only_new_scripts_run_and_once(
    open_app: Open, with_tables: WithTables
) -> None:
    first = "CREATE TABLE shop (x); INSERT INTO shop VALUES (1)"
    second = "ALTER TABLE shop ADD y DEFAULT 5; INSERT INTO shop VALUES (2, 6)"
    with_tables("shop", first)
    app = await open_app()
    for _ in range(2):
        app = await open_app()
        assert [tuple(row) for row in await app.database.all("SELECT * FROM shop")] == [
            (1,)
        ]
    with_tables("shop", first, second)
    for _ in range(2):
        app = await open_app()
        rows = await app.database.all("SELECT * FROM shop")
        assert [tuple(row) for row in rows] == [(1, 5), (2, 6)]
    assert (await versions(app))["shop"] == 2


async def test_tables_of_a_plugin_that_is_gone_stay_and_are_there_when_it_is_back(
    open_app: Open, with_tables: WithTables
) -> None:
    script = "CREATE TABLE shop (x); INSERT INTO shop VALUES (1)"
    path = with_tables("shop", script)
    await open_app()
    path.unlink()
    app = await open_app()
    assert "shop" not in app.plugins.all
    path.write_text("")  # it is there, and has no tables any more
    app = await open_app()
    assert app.plugins.all["shop"].off == ""
    assert await tables(app) >= {"shop"} and (await versions(app))["shop"] == 1
    with_tables("shop", script)
    app = await open_app()
    assert app.plugins.all["shop"].off == ""
    assert [row[0] for row in await app.database.all("SELECT * FROM shop")] == [1]


BROKEN: dict[str, Sequence[Any]] = {
    "nonsense": ["CREATE TABLE shop (x); INSERT INTO shop VALUES (1); NONSENSE"],
    "in the second script": ["CREATE TABLE shop (x)", "CREATE TABLE shop (x)"],
    "table of a part": ["CREATE TABLE shop (x)", "CREATE TABLE facts (x)"],
    "fails while it runs": [
        "CREATE TABLE shop (x UNIQUE); INSERT INTO shop VALUES (1), (1)"
    ],
    "open string": ["CREATE TABLE shop (x); INSERT INTO shop VALUES ('a)"],
    "open trigger": [
        "CREATE TABLE shop (x); CREATE TRIGGER t AFTER INSERT ON shop BEGIN SELECT 1;"
    ],
    "transaction of its own": ["BEGIN; CREATE TABLE shop (x); COMMIT"],
    "no SQL": ["CREATE TABLE shop (x)", "\0"],
    "half a character": ["CREATE TABLE shop (x)", "\ud83d"],
}


@pytest.mark.parametrize("scripts", BROKEN.values(), ids=BROKEN.keys())
async def test_failing_script_leaves_nothing_and_only_that_plugin_is_off(
    open_app: Open, with_tables: WithTables, scripts: Sequence[Any]
) -> None:
    with_tables("shop", *scripts)
    with_tables("another", "CREATE TABLE another (x)")
    app = await open_app()
    assert "its tables cannot be made" in app.plugins.all["shop"].off
    assert app.plugins.all["another"].off == ""
    assert await tables(app) == {"migrations", "facts", "another"}
    assert await versions(app) == {"sqlite_facts": 1, "another": 1}
    await app.facts.set("a", "b")  # no transaction was left open
    assert on_disk(path_of(app), "SELECT * FROM facts") == [("a", "b")]
    with_tables("shop", "CREATE TABLE shop (x)")  # once it is mended
    app = await open_app()
    assert app.plugins.all["shop"].off == "" and "shop" in await tables(app)


async def test_failing_new_version_leaves_the_tables_as_they_were(
    open_app: Open, with_tables: WithTables
) -> None:
    script = "CREATE TABLE shop (x); INSERT INTO shop VALUES (1)"
    with_tables("shop", script)
    await open_app()
    with_tables("shop", script, "UPDATE shop SET x = 2", "DROP TABLE shop; NONSENSE")
    app = await open_app()
    assert app.plugins.all["shop"].off
    assert [row[0] for row in await app.database.all("SELECT * FROM shop")] == [1]
    assert (await versions(app))["shop"] == 1


async def test_newer_tables_are_left_alone_and_only_that_plugin_is_off(
    open_app: Open, with_tables: WithTables
) -> None:
    with_tables("shop", "CREATE TABLE shop (x)", "CREATE TABLE shop_more (x)")
    await open_app()
    with_tables("shop", "CREATE TABLE shop (x)")
    app = await open_app()
    off = app.plugins.all["shop"].off
    assert "version 2" in off and "supports 1" in off and "Update the plugin" in off
    assert await tables(app) >= {"shop", "shop_more"}
    assert (await versions(app))["shop"] == 2


async def test_plugin_that_takes_the_name_of_our_table_is_off_and_ours_is_on(
    open_app: Open, with_tables: WithTables
) -> None:
    with_tables("a_history", "CREATE TABLE history (x)")  # comes first by its name
    app = await open_app("history")
    assert "history already exists" in app.plugins.all["a_history"].off
    assert app.plugins.all["history"].off == ""


FACTS = SUPPORT_PLUGINS / "facts_with_tables.py"


async def test_tables_of_a_part_that_cannot_be_made_end_the_start(
    open_app: Open, with_tables: WithTables
) -> None:
    with_tables("other_facts", "CREATE TABLE other (x); NONSENSE", source=FACTS)
    with pytest.raises(StartError, match="other_facts: its tables cannot be made"):
        await open_app()
    with_tables("other_facts", "CREATE TABLE other (x)", "", source=FACTS)
    await open_app()
    with_tables("other_facts", "CREATE TABLE other (x)", source=FACTS)
    with pytest.raises(StartError, match="other_facts: its tables have version 2"):
        await open_app()


@pytest.mark.parametrize("stem", ["it's", 'dou"ble', "a;b", "Ünï", "a--b"])
async def test_any_stem_may_have_tables(
    open_app: Open, with_tables: WithTables, stem: str
) -> None:
    with_tables(stem, "CREATE TABLE shop (x)")
    for _ in range(2):
        app = await open_app()
        assert app.plugins.all[stem].off == ""
        assert (await versions(app))[stem] == 1


ODD = {
    "comment at the end": "CREATE TABLE shop (x) -- the goods",
    "comment after the end": "CREATE TABLE shop (x); -- the goods; all of them",
    "comment that stays open": "CREATE TABLE shop (x); /* the goods",
    "nothing": "CREATE TABLE shop (x);;;\n  ;",
    "semicolons in a text": "CREATE TABLE shop (x DEFAULT 'a;b;--', \"c;d\")",
    "trigger": (
        "CREATE TABLE shop (x); CREATE TRIGGER t AFTER INSERT ON shop BEGIN "
        "DELETE FROM shop; SELECT 1; END; CREATE INDEX i ON shop (x)"
    ),
    "rows": "CREATE TABLE shop (x); SELECT * FROM sqlite_master; PRAGMA table_list",
}


@pytest.mark.parametrize("script", ODD.values(), ids=ODD.keys())
async def test_any_sql_may_be_in_a_script(
    open_app: Open, with_tables: WithTables, script: str
) -> None:
    with_tables("shop", script, "CREATE TABLE second (x)")
    for _ in range(2):
        app = await open_app()
        assert app.plugins.all["shop"].off == ""
        assert await tables(app) >= {"shop", "second"}
        assert (await versions(app))["shop"] == 2


def test_script_is_split_at_the_ends_of_statements() -> None:
    script = "a; b ';' -- ;\n; /* ; */ c"
    pieces = list(split_script(script))
    assert pieces == ["a;", " b ';' -- ;\n;", " /* ; */ c"]


async def test_migration_that_is_cancelled_is_whole_or_not_there(app: App) -> None:
    scripts = [f"CREATE TABLE shop{number} (x)" for number in range(20)]
    for turns in range(0, 60, 7):
        stem = f"shop{turns}"
        mine = [script.replace("shop", f"{stem}_") for script in scripts]
        migrating = asyncio.create_task(app.database.migrate(stem, mine))
        for _ in range(turns):
            await asyncio.sleep(0)
        migrating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await migrating
        made = [name for name in await tables(app) if name.startswith(f"{stem}_")]
        assert len(made) == (20 if stem in await versions(app) else 0)
        await app.database.migrate(stem, mine)
    assert len(await tables(app)) == 2 + 9 * 20


KILLED = OWN.replace(
    "await app.database.start()",
    """await app.database.start()
    insert = "INSERT INTO shop VALUES (1);"
    row = await app.database.one("SELECT version FROM migrations")
    for number in range(row[0] if row else 1, 10_000):
        scripts = ["CREATE TABLE shop (x)", *[insert * 20] * number]
        print(number, flush=True)
        await app.database.migrate("shop", scripts)""",
)


def test_migration_survives_kill_9_whole_or_not_at_all(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for _ in range(2):
        with own(data, tmp_path, KILLED) as process:
            assert process.stdout
            for _ in range(random.randint(2, 30)):
                process.stdout.readline()
            process.kill()
        sql = "SELECT version, (SELECT count(*) FROM shop) FROM migrations"
        ((version, rows),) = on_disk(data / "bossbot.db", sql)
        assert rows == (version - 1) * 20


async def test_reloaded_plugin_gets_its_new_tables(
    open_app: Open, with_tables: WithTables
) -> None:
    with_tables("shop", "CREATE TABLE shop (x)")
    app = await open_app()
    await app.database.migrate(
        "shop", ["CREATE TABLE shop (x)", "ALTER TABLE shop ADD y"]
    )
    await app.database.all("INSERT INTO shop VALUES (1, 2)")
    with pytest.raises(PluginError, match="NONSENSE"):
        await app.database.migrate("shop", ["", "", "NONSENSE"])
    with pytest.raises(PluginError, match="version 2"):
        await app.database.migrate("shop", [""])
    assert (await versions(app))["shop"] == 2


# Transactions


async def test_failed_transaction_is_undone_whole(app: App) -> None:
    with pytest.raises(ZeroDivisionError):
        async with app.database.transaction() as connection:
            await connection.execute("INSERT INTO facts VALUES ('a', 'b')")
            raise ZeroDivisionError
    assert await app.facts.get("a") == ""
    await app.facts.set("a", "c")
    await app.facts.set("a", "d")
    assert on_disk(path_of(app), "SELECT * FROM facts") == [("a", "d")]
    await app.facts.set("a", "")
    assert on_disk(path_of(app), "SELECT * FROM facts") == []


async def add_fact(database: Database, key: str) -> None:
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO facts VALUES (?, 'x')", (key,))


async def test_task_cancelled_in_a_transaction_leaves_none_open(app: App) -> None:
    with locked_by_another_process(path_of(app)) as other:
        adding = asyncio.create_task(add_fact(app.database, "first"))
        await longest_pause_s(10)
        adding.cancel()
        await asyncio.to_thread(other.communicate, "\n")
        with pytest.raises(asyncio.CancelledError):
            await adding
    await add_fact(app.database, "second")
    assert on_disk(path_of(app), "SELECT key FROM facts") == [("second",)]


@pytest.mark.parametrize("turns", range(0, 20, 3))
async def test_transaction_cancelled_at_any_moment_is_whole_or_not_there(
    app: App, turns: int
) -> None:
    async def add() -> None:
        async with app.database.transaction() as connection:
            for key in "ab":
                await connection.execute("INSERT INTO facts VALUES (?, 'x')", (key,))

    adding = asyncio.create_task(add())
    for _ in range(turns):
        await asyncio.sleep(0)
    adding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await adding
    await add_fact(app.database, "c")
    keys = [row[0] for row in on_disk(path_of(app), "SELECT key FROM facts")]
    assert sorted(keys) in (["c"], ["a", "b", "c"])


async def test_transactions_of_many_tasks_do_not_mix(app: App) -> None:
    async def count_up() -> None:
        async with app.database.transaction() as connection:
            read = "SELECT value FROM facts WHERE key = 'n'"
            rows = list(await connection.execute_fetchall(read))
            await asyncio.sleep(0)
            value = int(rows[0][0]) + 1 if rows else 1
            write = "INSERT OR REPLACE INTO facts VALUES ('n', ?)"
            await connection.execute(write, (str(value),))

    await asyncio.gather(*(count_up() for _ in range(30)))
    assert await app.facts.get("n") == "30"


async def test_function_runs_as_a_transaction(app: App) -> None:
    def count_up(database: sqlite3.Connection) -> int:
        row = database.execute("SELECT value FROM facts WHERE key = 'n'").fetchone()
        value = int(row[0]) + 1 if row else 1
        write = "INSERT OR REPLACE INTO facts VALUES ('n', ?)"
        database.execute(write, (str(value),))
        if value == 4:
            raise ZeroDivisionError
        return value

    assert [await app.database.run(count_up) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        await app.database.run(count_up)
    assert on_disk(path_of(app), "SELECT value FROM facts") == [("3",)]
    async with app.database.transaction():  # nothing is left open
        pass


@dataclass
class Busy:
    """Work that takes until it may go on."""

    sql: str = ""
    begun: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def work(self, database: sqlite3.Connection) -> None:
        self.begun.set()
        assert self.may_go_on.wait(60)
        if self.sql:
            database.execute(self.sql)

    async def begin(self, app: App) -> "asyncio.Task[None]":
        task = asyncio.create_task(app.database.run(self.work))
        assert await asyncio.to_thread(self.begun.wait, 60)
        return task


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_comes_at_once_is_done_without_the_loop(app: App) -> None:
    busy, over = Busy(), threading.Event()
    first = await busy.begin(app)
    others = [asyncio.create_task(app.facts.set(key, "x")) for key in "abcdef"]
    ended = app.database.run(lambda database: over.set())
    others.append(asyncio.create_task(ended))
    await asyncio.sleep(0)
    busy.may_go_on.set()
    assert over.wait(60)  # the loop stands still
    keys = on_disk(path_of(app), "SELECT key FROM facts ORDER BY rowid")
    assert [key for (key,) in keys] == [*"abcdef"]
    await asyncio.gather(first, *others)


async def test_write_of_a_task_cancelled_before_its_turn_never_comes(app: App) -> None:
    busy = Busy()
    first = await busy.begin(app)
    writing = asyncio.create_task(app.facts.set("a", "1"))
    await asyncio.sleep(0)
    await cancelled(writing)
    busy.may_go_on.set()
    await first
    await app.facts.set("b", "1")
    assert on_disk(path_of(app), "SELECT key FROM facts") == [("b",)]


@pytest.mark.parametrize("earlier", ["known", "read", "written"])
async def test_fact_from_before_a_write_that_was_cancelled_is_not_kept(
    app: App, earlier: str
) -> None:
    if earlier == "known":
        await app.facts.set("a", "old")
    first, write = Busy(), Busy("INSERT OR REPLACE INTO facts VALUES ('a', 'new')")
    tasks: list[asyncio.Future[Any]] = [await first.begin(app)]
    written = earlier == "written"
    under_way = app.facts.set("a", "old") if written else app.facts.get("a")
    tasks.append(asyncio.ensure_future(under_way))
    await asyncio.sleep(0)
    with pytest.MonkeyPatch.context() as patch:  # a write that takes a while
        run = app.database.run
        patch.setattr(app.database, "run", lambda work: run(write.work))
        setting = asyncio.create_task(app.facts.set("a", "new"))
        await asyncio.sleep(0)
    first.may_go_on.set()
    assert write.begun.wait(60)  # while the loop stands still
    await cancelled(setting)
    await tasks[-1]
    write.may_go_on.set()
    await asyncio.gather(*tasks)
    assert await app.facts.get("a") == "new"


async def test_fact_is_swapped_in_one_step_also_beside_a_write(app: App) -> None:
    for first in ("swap", "set"):
        await app.facts.set("a", "")
        calls = [app.facts.swap("a", "", "swapped"), app.facts.set("a", "set")]
        both = await asyncio.gather(*(calls if first == "swap" else calls[::-1]))
        assert both == ([True, None] if first == "swap" else [None, False])
        assert await app.facts.get("a") == "set"
        assert on_disk(path_of(app), "SELECT value FROM facts") == [("set",)]


async def test_fact_is_read_once_until_it_is_written(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.facts.set("a", "b")
    assert await app.facts.get("a") == "b"
    with monkeypatch.context() as patch:
        patch.setattr(app.database, "one", None)
        assert await app.facts.get("a") == "b"
    written = asyncio.gather(app.facts.set("a", "c"), app.facts.get("a"))
    await written
    assert await app.facts.get("a") == "c"


async def test_database_used_inside_its_own_transaction_fails_and_does_not_hang(
    app: App,
) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(RuntimeError, match="use its connection"):
            async with app.database.transaction():
                await app.facts.get("a")
        with pytest.raises(RuntimeError, match="use its connection"):
            async with app.database.transaction(), app.database.transaction():
                pass
        with pytest.raises(RuntimeError, match="use its connection"):
            async with app.database.transaction():
                await app.database.sync()
        await app.facts.set("a", "b")  # and the next one has its turn
        assert await app.facts.get("a") == "b"


async def test_values_are_given_by_position_or_by_name(app: App) -> None:
    database = app.database
    assert await database.one("SELECT 1 WHERE 0") is None
    row = await database.one("SELECT ? AS a, ? AS b", 1, "'; DROP TABLE facts")
    assert row is not None and (row["a"], row["b"]) == (1, "'; DROP TABLE facts")
    rows = await database.all("SELECT :x AS a UNION ALL SELECT :y", x=1, y=2)
    assert [row["a"] for row in rows] == [1, 2]


async def test_error_of_one_statement_leaves_the_next_alone(app: App) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await app.database.all("NONSENSE")
    assert await app.database.all("SELECT * FROM facts") == []


# A power cut


@pytest.fixture
def disk(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(path_of(app), tmp_path / "disk.db")
    monkeypatch.setattr(module("sqlite_database"), "sync_file", disk.sync_file)
    return disk


async def test_commit_that_nobody_waits_for_is_on_the_disk_before_long(
    app: App, disk: Disk
) -> None:
    app.database.sync_within_s = 0.01  # type: ignore[attr-defined]
    await app.facts.set("a", "1")
    async with asyncio.timeout(60):
        while not disk.syncs or disk.holds("SELECT key FROM facts") != [("a",)]:
            await asyncio.sleep(0.01)
    syncs = disk.syncs
    await app.facts.get("a")  # this changes nothing
    with pytest.raises(sqlite3.OperationalError):
        await app.database.all("NONSENSE")
    await asyncio.sleep(0.05)
    assert disk.syncs == syncs


async def test_commit_of_a_cancelled_task_is_on_the_disk_before_long(
    app: App, disk: Disk
) -> None:
    await app.database.sync()  # nothing of the start is left to do
    app.database.sync_within_s = 0.01  # type: ignore[attr-defined]
    write = Busy("INSERT INTO facts VALUES ('a', '1')")
    await cancelled(await write.begin(app))
    write.may_go_on.set()
    async with asyncio.timeout(60):
        while not disk.syncs or disk.holds("SELECT key FROM facts") != [("a",)]:
            await asyncio.sleep(0.01)


async def test_those_who_come_at_once_share_a_sync(app: App, disk: Disk) -> None:
    async def commit(key: str) -> None:
        await app.facts.set(key, "1")
        await app.database.sync()

    before = disk.syncs
    await asyncio.gather(*map(commit, "abcdefghij"))
    assert disk.syncs == before + 1


async def test_sync_brings_all_that_was_committed_before(app: App, disk: Disk) -> None:
    disk.free.clear()
    await app.facts.set("a", "1")
    first = asyncio.create_task(app.database.sync())
    while not disk.syncs:
        await asyncio.sleep(0.01)
    await app.facts.set("b", "1")  # the first sync may be too early for this one
    second = asyncio.create_task(app.database.sync())
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(first, second)
    assert disk.syncs == 2
    assert disk.holds("SELECT key FROM facts") == [("a",), ("b",)]


async def test_failed_sync_is_made_good_by_the_next(
    app: App, disk: Disk, logged: list[str]
) -> None:
    app.database.sync_within_s = 0.01  # type: ignore[attr-defined]
    disk.error = OSError("the disk is broken")
    await app.facts.set("a", "1")
    async with asyncio.timeout(60):
        while not any("to the disk: the disk is broken" in line for line in logged):
            await asyncio.sleep(0.01)
    with pytest.raises(OSError, match="broken"):
        await app.database.sync()
    disk.error = None
    await app.database.sync()
    path_of(app).with_name("bossbot.db-wal").rename(disk.path.parent / "lost")
    assert on_disk(path_of(app), "SELECT key FROM facts") == [("a",)]


async def test_failed_sync_is_tried_again_though_nothing_more_is_written(
    app: App, disk: Disk
) -> None:
    await app.database.sync()  # nothing of the start is left to do
    vars(app.database).update(sync_within_s=0.01, sync_again_s=0.01)
    disk.errors = [OSError("the disk is busy"), OSError("the disk is busy")]
    before = disk.syncs
    await app.facts.set("a", "1")
    async with asyncio.timeout(60):
        while disk.syncs < before + 3 or disk.holds("SELECT key FROM facts") != [
            ("a",)
        ]:
            await asyncio.sleep(0.01)


async def test_what_a_killed_bot_left_is_on_the_disk_before_anybody_reads_it(
    open_app: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await open_app()
    await app.facts.set("a", "1")
    for suffix in ("", "-wal"):  # as they are when it is killed now
        shutil.copy(f"{path_of(app)}{suffix}", f"{tmp_path / 'left'}{suffix}")
    await app.stop()
    for suffix in ("", "-wal"):
        (tmp_path / f"left{suffix}").rename(f"{path_of(app)}{suffix}")
    wal = path_of(app).with_name("bossbot.db-wal").stat().st_ino
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_ino))
    app = await open_app()
    assert wal in synced
    assert await app.facts.get("a") == "1"
