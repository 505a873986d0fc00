"""``backup`` and ``restore``: everything that the bot knows, no secrets unless asked, at
any moment, and never half of it."""

import argparse
import asyncio
import contextlib
import errno
import gzip
import io
import json
import os
import re
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Home, make_job, our_plugins
from discord_support import Stage, job_id, link, module, until

import bossbot
from bossbot import App, BossbotError, StartError

pytest_plugins = ("discord_fixtures",)

SECRET = "hush-token-1"
CONFIG = f"""
max_items = 7
[plugins.twitter]
auth_token = "{SECRET}"
thread = true
"""


class Place:
    """A bot that is not running, with its own folder for everything."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.data = folder / "data"
        self.own = folder / "plugins"
        self.own.mkdir(parents=True)

    def app(self, **values: Any) -> App:
        settings = bossbot.Settings.model_validate(
            {"data_dir": self.data, "plugins_dir": self.own, **values}
        )
        bossbot.prepare_data(self.data)
        bossbot.hide_secrets("the settings", [SECRET])
        app = App(
            settings,
            our_plugins("backup", "sqlite_database", "sqlite_queue", "twitter"),
        )
        app.plugins.load()
        [backup] = [i for i in app.plugins.impls("register_subcommands")]
        self.patch.setitem(backup.function.__globals__, "HERE", self.folder)
        return app

    async def run(self, name: str, file: Path, **options: Any) -> int:
        app = self.app(**options.pop("settings", {}))
        command = app.plugins.registered("subcommands")[name]
        given = {"file": file, "with_secrets": False, **options}
        return await command.run(app, argparse.Namespace(**given))

    def database(self, name: str = "bossbot.db") -> "contextlib.closing[Any]":
        return contextlib.closing(
            sqlite3.connect(self.data / name, isolation_level=None)
        )

    def words(self, name: str = "bossbot.db") -> list[str]:
        with self.database(name) as database:
            return [row[0] for row in database.execute("SELECT word FROM words")]

    def fill(self, word: str) -> None:
        """Something of each kind."""
        self.app()
        for name in ("bossbot.db", "archive.db"):
            with self.database(name) as database:
                database.executescript(
                    "PRAGMA journal_mode=WAL; DROP TABLE IF EXISTS words;"
                    f"CREATE TABLE words (word); INSERT INTO words VALUES ('{word}')"
                )
        for name, text in (
            ("data/guilds/1.toml", f'[caption]\nword = "{word}"\n'),
            (f"data/guilds/{len(word)}0.toml", ""),
            ("data/guilds/last_good/1.toml", word),
            ("data/worker", word),
            ("data/logs/boss-bot_1.log", word),
            ("data/downloads/1/x.jpg", word),
            ("plugins/mine.py", f'"""{word}"""'),
            ("plugins/more/__init__.py", word),
            ("plugins/more/__pycache__/x.pyc", word),
            ("plugins/.git/config", word),
        ):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def secrets(self) -> None:
        (self.folder / ".env").write_text(f"BOSS_BOT_DISCORD_TOKEN={SECRET}\n")
        (self.data / "config.toml").write_text(CONFIG)
        (self.data / "twitter.txt").write_text(f"cookie {SECRET}")


MakePlace = Callable[[str], Place]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlace:
    return lambda name: Place(tmp_path / name, monkeypatch)


def names(file: Path) -> list[str]:
    with tarfile.open(file) as archive:
        return archive.getnames()


KNOWN = [
    "manifest.json",
    "data/archive.db",
    "data/bossbot.db",
    "data/guilds/1.toml",
    "data/guilds/40.toml",
    "data/guilds/last_good/1.toml",
    "data/worker",
    "plugins/mine.py",
    "plugins/more/__init__.py",
]


async def test_everything_that_the_bot_knows_comes_back(
    place: MakePlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, file = place("one"), place("other"), tmp_path / "b.tar.gz"
    one.fill("good")
    assert await one.run("backup", file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert names(file) == KNOWN
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"
    other.fill("other")
    (other.own / "yours.py").write_text("stays")
    assert await other.run("restore", file) == 0
    assert other.words() == other.words("archive.db") == ["good"]
    assert (
        other.data / "guilds" / "1.toml"
    ).read_text() == '[caption]\nword = "good"\n'
    assert sorted(p.name for p in (other.data / "guilds").glob("*.toml")) == [
        "1.toml",
        "40.toml",
    ], "a server that the backup does not know has no settings"
    assert (other.own / "mine.py").read_text() == '"""good"""'
    assert (other.own / "yours.py").read_text() == "stays"
    assert (other.data / "logs" / "boss-bot_1.log").read_text() == "other"
    [aside] = other.data.glob("before-restore-*")
    said = capsys.readouterr().out
    assert str(aside) in said and "settings of servers: 2" in said
    with contextlib.closing(sqlite3.connect(aside / "data" / "bossbot.db")) as old:
        assert old.execute("SELECT word FROM words").fetchall() == [("other",)]
    assert (aside / "plugins" / "mine.py").read_text() == '"""other"""'
    assert (aside / "data" / "guilds" / "50.toml").exists()
    assert not list(other.data.glob(".restore-*"))


async def test_backup_has_no_secrets_unless_asked(
    place: MakePlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    one.secrets()
    (tmp_path / "reddit.txt").write_text("elsewhere")
    cookies = {"plugins": {"twitter": {"cookies_file": str(one.data / "twitter.txt")}}}
    await one.run("backup", file, settings=cookies)
    assert SECRET.encode() not in gzip.decompress(file.read_bytes())
    said = capsys.readouterr().out
    for name in ("config.toml: auth_token", f"{one.folder / '.env'}", "twitter.txt"):
        assert f"left out: {name}" in said or name in said
    # Where it is moved to, everything but the secrets is there.
    moved = place("moved")
    await moved.run("restore", file)
    text = (moved.data / "config.toml").read_text()
    assert "max_items = 7" in text and "thread = true" in text
    assert "# auth_token = a secret, which is not in the backup" in text
    # Where they are, they stay.
    await one.run("restore", file)
    assert (one.data / "config.toml").read_text() == CONFIG
    assert SECRET in (one.folder / ".env").read_text()
    # With them.
    await one.run("backup", file, with_secrets=True, settings=cookies)
    assert "secrets/.env" in names(file) and "secrets/data/twitter.txt" in names(file)
    assert "it holds secrets" in capsys.readouterr().out
    elsewhere = {"plugins": {"twitter": {"cookies_file": str(tmp_path / "reddit.txt")}}}
    await one.run("backup", tmp_path / "c", with_secrets=True, settings=elsewhere)
    assert "reddit.txt (it is not in the data folder)" in capsys.readouterr().out
    assert not [name for name in names(tmp_path / "c") if "reddit" in name]
    other = place("with")
    await other.run("restore", file)
    assert (other.data / "config.toml").read_text() == CONFIG
    for path in (other.folder / ".env", other.data / "twitter.txt"):
        assert SECRET in path.read_text() and path.stat().st_mode & 0o777 == 0o600


async def test_config_whose_secret_has_no_clear_end_is_left_out(
    place: MakePlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    text = f'[plugins.twitter]\nauth_token = """\n{SECRET}"""\n'
    (one.data / "config.toml").write_text(text)
    await one.run("backup", file)
    assert SECRET.encode() not in gzip.decompress(file.read_bytes())
    assert "data/config.toml" not in names(file)
    assert "left out: config.toml: all of it" in capsys.readouterr().out


async def test_backup_of_a_bot_that_runs_is_of_one_moment(
    stage: Stage, place: MakePlace, tmp_path: Path
) -> None:
    """And it is not restored while it runs; then the unfinished links end, since they
    may have been posted meanwhile, and their members are told."""
    for name in ("backup", "history"):
        stage.add_plugin(name)
    stage.server = None  # the others' would go on with the plugins that are restored
    file = tmp_path / "b.tar.gz"
    async with stage.bot() as bot:
        commands = bot.app.plugins.registered("subcommands")
        args = argparse.Namespace(file=file, with_secrets=False)
        await stage.says(f"$dlt {link(stage.image(1))}")
        await stage.gets(1)
        waits = await stage.says(f"$dlt {link('wait=gate', stage.image(2))}")
        started = await stage.hears("Download started", after=waits.id)

        async def is_noted() -> bool:
            job = await bot.app.queue.get(job_id(started))
            return bool(job and job.status_message_id)

        await until(is_noted)
        assert (
            await asyncio.to_thread(asyncio.run, commands["backup"].run(bot.app, args))
            == 0
        )
        with pytest.raises(StartError, match=f"process {os.getpid()}"):
            await commands["restore"].run(bot.app, args)
        stage.open_gate("gate")
        await stage.gets(2)
    app = stage.app()
    assert await app.plugins.registered("subcommands")["restore"].run(app, args) == 0
    [row] = stage.database(
        "SELECT status, cause FROM jobs WHERE id = ?", job_id(started)
    )
    assert row == ("failed", "internal")
    async with stage.bot():
        await stage.hears("The bot was restored from a backup", "paste it again")
        await stage.fake.settle()
        assert len(stage.posted()) == 2, "nothing is posted twice"


async def test_links_that_wait_go_on_where_a_stopped_bot_is_moved_to(
    place: MakePlace, tmp_path: Path
) -> None:
    one, other, file = place("one"), place("other"), tmp_path / "b.tar.gz"

    app = one.app()
    await app.database.start()
    await app.queue.add(make_job())
    await app.stop()
    await one.run("backup", file)
    await other.run("restore", file)
    count = "SELECT count(*) FROM jobs WHERE status = ?"
    for where, status, number in ((other, "queued", 1), (one, "failed", 1)):
        if where is one:  # there it may have been posted since
            await one.run("restore", file)
        with where.database() as database:
            assert database.execute(count, (status,)).fetchone() == (number,)


# What goes wrong


def tar(**members: bytes) -> bytes:
    """A file as ours, of members by name with "__" for "/"."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(
                name.replace("__", "/").replace("manifest", "manifest.json")
            )
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def as_if(size: int, **fields: Any) -> bytes:
    """A backup whose last member says that it is so large."""
    raw, info = io.BytesIO(), tarfile.TarInfo(fields.pop("name", "data/a.db"))
    with tarfile.open(fileobj=raw, mode="w") as archive:
        first = tarfile.TarInfo("manifest.json")
        first.size = len(manifest())
        archive.addfile(first, io.BytesIO(manifest()))
        info.size = size
        for field, value in fields.items():
            setattr(info, field, value)
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    return gzip.compress(raw.getvalue() + b"x" * 1024)


def manifest(**more: Any) -> bytes:
    made = {"form": 1, "version": "1.0.0", "made_at": 1, "running": False}
    return json.dumps({**made, **more}).encode()


def damaged() -> bytes:
    """A database whose first page is as it should be."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE words (word)")
        database.execute("INSERT INTO words VALUES (?)", ("x" * 10000,))
        database.commit()
        content = bytearray(database.serialize())
    content[5000:] = b"\xff" * (len(content) - 5000)
    content[4096:4196] = b"\xff" * 100
    return bytes(content)


WRONG = {
    "damaged page": (
        tar(manifest=manifest(), **{"data__bossbot.db": damaged()}),
        "is damaged",
    ),
    "text": (b"hello", "is not a backup"),
    "empty": (b"", "is not a backup"),
    "another tar": (tar(data__bossbot=b"x"), "it has no manifest"),
    "newer": (tar(manifest=manifest(form=2, version="9.0")), "Update the bot"),
    "no form": (tar(manifest=b"{}"), "is not a backup"),
    "upwards": (
        tar(manifest=manifest(), **{"data__..__..__x": b"x"}),
        "unexpected member",
    ),
    "absolute": (tar(manifest=manifest(), __tmp__x=b"x"), "unexpected member"),
    "elsewhere": (tar(manifest=manifest(), etc__x=b"x"), "unexpected member"),
    "zip": (b"PK\3\4", "is not a backup"),
    "link": (
        as_if(0, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "unexpected member",
    ),
    "hard link": (as_if(0, type=tarfile.LNKTYPE, linkname="a"), "unexpected member"),
    "device": (as_if(0, type=tarfile.CHRTYPE), "unexpected member"),
    "too large for the disk": (
        as_if(2**62),
        "'data/a.db' takes .* free in .*Make room",
    ),
    "holes": (as_if(2**62, type=tarfile.GNUTYPE_SPARSE), "not a backup|takes"),
    "too large for the memory": (as_if(2**40, type=tarfile.XHDTYPE), "too large"),
    "long name": (as_if(2**40, type=tarfile.GNUTYPE_LONGNAME), "too large"),
    "over the bot": (
        tar(manifest=manifest(), secrets__bossbot=b"x"),
        "unexpected member, 'secrets/bossbot'",
    ),
    "beside a database": (
        tar(manifest=manifest(), **{"data__bossbot.db-wal": b"x"}),
        "unexpected member",
    ),
    "beside a database, as a cookie file": (
        tar(manifest=manifest(), **{"secrets__data__bossbot.db-wal": b"x"}),
        "unexpected member",
    ),
    "twice": (
        gzip.compress(
            gzip.decompress(tar(manifest=manifest(), data__worker=b"x"))[:2048]
            + gzip.decompress(tar(manifest=manifest(), data__worker=b"x"))[1024:]
        ),
        "File exists",
    ),
    "file as a folder": (
        tar(manifest=manifest(), data__guilds__a=b"x", data__guilds__a__b=b"x"),
        "exists|Not a directory",
    ),
    "no time": (tar(manifest=manifest(made_at=1e300)), "is not a backup"),
    "no number": (tar(manifest=manifest(form=float("inf"))), "is not a backup"),
    "deep": (tar(manifest=b"[" * 200_000), "is not a backup"),
    "words": (tar(manifest=manifest(form=2, version="\x1b[2J\n")), "Boss-Bot , and"),
    "damaged database": (
        tar(
            manifest=manifest(),
            **{"data__bossbot.db": b"SQLite format 3\0" + b"x" * 99},
        ),
        "is damaged",
    ),
}


async def test_what_is_no_backup_changes_nothing_and_says_why(
    place: MakePlace, tmp_path: Path
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    for kind, (content, why) in WRONG.items():
        file.write_bytes(content)
        with pytest.raises(BossbotError) as caught:
            await one.run("restore", file)
        assert re.search(why, str(caught.value)), kind
        assert one.words() == ["good"], kind
        assert not list(one.data.glob("before-restore-*")), kind
        assert not list(one.data.glob(".restore-*")), kind


async def test_backup_cannot_put_anything_over_our_own_plugins(
    place: MakePlace, tmp_path: Path
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    app = one.app()
    shelf = one.own / "parts"
    shelf.symlink_to(app.plugins.ours / "parts")
    for name in ("plugins__parts__evil.py", "plugins__README.md", "plugins__.x"):
        file.write_bytes(tar(manifest=manifest(), **{name: b"x"}))
        with pytest.raises(BossbotError, match="unexpected member"):
            await one.run("restore", file)
    assert not (shelf / "evil.py").exists()


def test_backup_without_room_or_rights_says_what_to_do(tmp_path: Path) -> None:
    backup, file = module("backup"), tmp_path / "b.tar.gz"
    with contextlib.closing(sqlite3.connect(tmp_path / "full.db")) as database:
        database.execute("CREATE TABLE words (word)")
        database.execute("PRAGMA max_page_count = 2")
        with pytest.raises(sqlite3.DatabaseError) as full:
            database.execute("INSERT INTO words VALUES (zeroblob(10000))")
    for error, said in (
        (full.value, "There is no room for a backup in"),
        (OSError(errno.ENOSPC, "full", str(file)), "There is no room for a backup in"),
        (OSError(errno.EROFS, "Read-only", str(file)), "Choose another folder"),
        (OSError(errno.EACCES, "No", "/x/a.py"), "/x/a.py cannot be read: No"),
        (OSError("unexpected end of data"), "unexpected end of data"),
    ):
        assert said in backup.why_not_made(error, file)


async def test_backup_that_is_cut_short_anywhere_changes_nothing(
    place: MakePlace, tmp_path: Path
) -> None:
    one, other, file = place("one"), place("other"), tmp_path / "b.tar.gz"
    one.fill("good")
    other.fill("other")
    await one.run("backup", file)
    whole = file.read_bytes()
    for share in (0.01, 0.5, 0.9, 0.999):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BossbotError, match="is not a backup"):
            await other.run("restore", file)
        assert other.words() == ["other"]


async def test_backup_with_newer_tables_is_refused(
    place: MakePlace, tmp_path: Path
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    with one.database() as database:
        database.executescript(
            "CREATE TABLE migrations (plugin, version);"
            "INSERT INTO migrations VALUES ('sqlite_queue', 99), ('gone', 99)"
        )
    await one.run("backup", file)
    with pytest.raises(BossbotError, match="newer tables of sqlite_queue"):
        await one.run("restore", file)


async def test_only_a_backup_is_written_over(place: MakePlace, tmp_path: Path) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    os.mkfifo(tmp_path / "fifo")
    for target, why in (
        (one.data / "bossbot.db", "is not a backup"),
        (tmp_path / "fifo", "is not a backup"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "b", "not a folder"),
        (tmp_path / ("x" * 300), "name too long. Choose another"),
        (Path("-"), "Name one"),
    ):
        with pytest.raises(BossbotError, match=why):
            await one.run("backup", target)
    for wrong in (file, tmp_path / ("x" * 300)):
        with pytest.raises(BossbotError, match="no such file"):
            await one.run("restore", wrong)
    (tmp_path / "link").symlink_to(file)
    for target in (file, file, tmp_path / "link"):
        await one.run("backup", target)
    assert (tmp_path / "link").is_symlink()
    assert one.words() == ["good"]


async def test_secrets_that_have_no_place_are_named_and_the_rest_is_restored(
    place: MakePlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other, file = place("one"), place("other"), tmp_path / "b.tar.gz"
    one.fill("good")
    one.secrets()
    await one.run("backup", file, with_secrets=True)
    (other.folder / ".env").mkdir()  # as good as a folder that is read-only
    assert await other.run("restore", file) == 0
    said = capsys.readouterr().out
    assert f"left out: {other.folder / '.env'}" in said and "secrets/.env" in said
    assert SECRET not in said and other.words() == ["good"]
    assert (other.data / "guilds" / "1.toml").exists()


async def test_what_a_killed_command_left_goes_with_the_next_one(
    place: MakePlace, tmp_path: Path
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    old, new, staged = (
        tmp_path / ".b.tar.gz.old",
        tmp_path / ".b.tar.gz.new",
        one.data / ".restore-old",
    )
    for folder in (old, new, staged):
        folder.mkdir()
    os.utime(old, (1, 1))
    await one.run("backup", file)
    assert new.exists() and not old.exists()  # another one may be at work
    await one.run("restore", file)
    assert not staged.exists()


async def test_damaged_database_leaves_the_old_backup(
    place: MakePlace, tmp_path: Path
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    await one.run("backup", file)
    before = file.read_bytes()
    with (one.data / "bossbot.db").open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * 4096)
    with pytest.raises(BossbotError, match="A database cannot be copied"):
        await one.run("backup", file)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


async def test_restore_that_is_killed_anywhere_is_finished_by_another_one(
    place: MakePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, file = place("one"), tmp_path / "b.tar.gz"
    one.fill("good")
    await one.run("backup", file)
    replace = Path.replace
    for steps in (0, 1, 2, 5):
        other = place(f"other{steps}")
        other.fill("other")
        left = iter(range(steps))

        def dying(path: Path, target: Path, left: Any = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            with contextlib.suppress(KeyboardInterrupt):
                await other.run("restore", file)
        assert other.words() in (["good"], ["other"]), "one or the other, whole"
        assert (other.data / "guilds" / "1.toml").exists()
        await other.run("restore", file)
        assert other.words() == other.words("archive.db") == ["good"]
        assert (other.own / "mine.py").read_text() == '"""good"""'
        kept = [p.read_text() for p in other.data.glob("before-*/plugins/mine.py")]
        assert '"""other"""' in kept


async def test_log_of_writes_of_a_killed_bot_does_not_get_into_the_restored_one(
    place: MakePlace, tmp_path: Path
) -> None:
    one, other, file = place("one"), place("other"), tmp_path / "b.tar.gz"
    one.fill("good")
    await one.run("backup", file)
    other.fill("other")
    left = other.database()
    with left as database:  # held open, so that its log stays
        database.execute("INSERT INTO words VALUES ('late')")
        wal = (other.data / "bossbot.db-wal").read_bytes()
    (other.data / "bossbot.db-wal").write_bytes(wal)  # as a kill leaves it
    await other.run("restore", file)
    assert other.words() == ["good"]


async def test_commands_by_their_names(bare_home: Home, tmp_path: Path) -> None:
    source = bossbot.HERE / "plugins" / "owner" / "backup.py"
    (bare_home.path / "plugins" / "owner" / "backup.py").write_text(source.read_text())
    file = tmp_path / "b.tar.gz"
    done = await asyncio.to_thread(bare_home.run, "backup", file)
    assert done.returncode == 0 and str(file) in done.stdout, done.stderr
    assert "plugins/nowhere.py" in names(file)
    assert not [n for n in names(file) if "child_runner" in n]
