"""``backup`` and ``restore``: what the bot knows, in one file, also while it runs."""

import argparse
import contextlib
import gzip
import io
import json
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bossbot_plugins._files import write_atomically
from bossbot_plugins._lock import lock_data

import bossbot
from bossbot import (
    HERE,
    N_,
    App,
    BossbotError,
    Cause,
    Subcommand,
    format_size,
    hookimpl,
    now,
    parse_toml,
    plugin_folders,
    redact,
)

FORM = 1  # of the file; a newer one is refused
MANIFEST = "manifest.json"
FOLDERS = ("data", "plugins", "secrets")
UNFINISHED = "status IN ('queued', 'downloading', 'processing', 'uploading')"
AGAIN = N_(
    "The bot was restored from a backup. If the files of this link are missing, paste "
    "it again."
)
BROKEN = (tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, TypeError)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [
        Subcommand("backup", "write what the bot knows to a file", back_up, to_file),
        Subcommand("restore", "put a backup in place", restore, from_file),
    ]


def to_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="for example backup.tar.gz")
    parser.add_argument(
        "--with-secrets",
        action="store_true",
        help="also the token, cookies, and other secrets",
    )


def from_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="what `backup` wrote")


# Backup


async def back_up(app: App, args: argparse.Namespace) -> int:
    """Write a backup, whole or not at all; returns 0.

    Raises:
        BossbotError: it cannot be written, or a database is damaged.
    """
    file: Path = args.file.absolute()
    if file.is_dir():
        raise BossbotError(f"{file} is a folder. Name a file in it.")
    if not file.parent.is_dir():
        raise BossbotError(f"{file.parent} is no folder. Make it first.")
    if file.exists() and not is_backup(file):
        raise BossbotError(f"{file} is there, and is no backup. Choose another name.")
    try:
        # Beside the file, so that it can be put in place in one step.
        prefix = f".{file.name}."
        for leftover in file.parent.glob(f"{prefix}*/"):  # of one that was killed
            if leftover.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=file.parent) as scratch:
            made = Path(scratch) / "backup"
            said = write_backup(app, made, Path(scratch), args.with_secrets)
            made.replace(file)
    except sqlite3.DatabaseError as error:
        raise BossbotError(f"A database cannot be copied: {error}.") from error
    except OSError as error:
        raise BossbotError(f"{file} cannot be written: {error.strerror}.") from error
    print(f"{file}: {format_size(file.stat().st_size)}")
    for line in said:
        print(f"  {line}")
    return 0


def is_backup(file: Path) -> bool:
    """Whether a file begins as ours do."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            first = archive.next()
            return first is not None and first.name == MANIFEST
    except (*BROKEN, OSError):
        return False


def write_backup(app: App, made: Path, scratch: Path, with_secrets: bool) -> list[str]:
    """Write a backup; returns what is in it, and what is not, a line for each."""
    data, said, left_out = app.settings.data_dir, list[str](), list[str]()
    manifest = {
        "form": FORM,
        "version": bossbot.__version__,
        "made_at": round(time.time()),
        # SQLite removes this file when a bot has stopped.
        "running": (data / "bossbot.db-wal").exists(),
        "with_secrets": with_secrets,
    }
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(descriptor, "wb") as raw,
        tarfile.open(
            fileobj=raw, mode="w:gz", compresslevel=6, dereference=True
        ) as archive,
    ):
        add(archive, MANIFEST, json.dumps(manifest).encode())
        for path in sorted(data.glob("*.db")):
            copy = scratch / path.name
            copy_database(path, copy)
            archive.add(copy, f"data/{path.name}", filter=plain)
            said.append(f"{path.name}: {format_size(copy.stat().st_size)}")
            copy.unlink()
        guilds = files_in(data / "guilds")
        for path in guilds:
            archive.add(path, f"data/{path.relative_to(data)}", filter=plain)
        said.append(
            f"settings of servers: {len(list((data / 'guilds').glob('*.toml')))}"
        )
        if (data / "worker").is_file():
            archive.add(data / "worker", "data/worker", filter=plain)
        config = data / "config.toml"
        if config.is_file():
            text = config.read_text("utf-8-sig")
            shown, hidden = (
                (text, list[str]()) if with_secrets else without_secrets(text)
            )
            if shown:
                add(archive, "data/config.toml", shown.encode())
                said.append("config.toml")
            left_out += [f"config.toml: {name}" for name in hidden]
        own = own_files(app)
        for name, path in own:
            archive.add(path, f"plugins/{name}", filter=plain)
        said.append(f"files of your plugins: {len(own)}")
        for name, path in secret_files(app):
            if name and with_secrets:
                archive.add(path, f"secrets/{name}", filter=plain)
                said.append(f"{path.name}: a secret")
            else:
                where = "" if name else " (it is not in the data folder)"
                left_out.append(f"{path}{where}")
        archive.close()
        raw.flush()
        os.fsync(raw.fileno())
    said += [f"left out: {name}" for name in left_out]
    if with_secrets:
        said.append("it holds secrets: keep it where nobody else can read it")
    return said


def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member as the backup has it: private, and of nobody."""
    info.mode, info.uid, info.gid, info.uname, info.gname = 0o600, 0, 0, "", ""
    return info


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(content), round(time.time())
    archive.addfile(plain(info), io.BytesIO(content))


def copy_database(source: Path, copy: Path) -> None:
    """Copy a SQLite file as it is at one moment, whoever writes to it; raises
    sqlite3.DatabaseError when it is damaged."""
    with (
        contextlib.closing(sqlite3.connect(source, timeout=60)) as reading,
        contextlib.closing(sqlite3.connect(copy)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")  # the copy is one file
        check_database(writing, source)


def check_database(database: sqlite3.Connection, path: Path) -> None:
    (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(f"{path.name} is damaged ({answer})")


def files_in(folder: Path) -> list[Path]:
    """A file, or those in a folder and below, but hidden ones and bytecode."""
    return [
        path
        for path in [folder, *sorted(folder.rglob("*"))]
        if path.is_file()
        and not any(
            part.startswith(".") or part == "__pycache__"
            for part in path.relative_to(folder).parts
        )
    ]


def own_files(app: App) -> list[tuple[str, Path]]:
    """The files of the owner's plugins and libraries, by their names in their folder."""
    own, *ours = plugin_folders(app.settings.plugins_dir, app.plugins.ours)
    shelves = {shelf.resolve() for shelf in ours}
    return [
        (path.relative_to(own).as_posix(), path)
        for entry in sorted(own.iterdir())
        if entry.name not in ("README.md", "__pycache__")
        if not entry.name.startswith(".") and entry.resolve() not in shelves
        for path in files_in(entry)
    ]


def secret_files(app: App) -> Iterator[tuple[str, Path]]:
    """Files with secrets, by their names in a backup, which are "" for those that lie
    elsewhere than in the data folder."""
    data = app.settings.data_dir
    if (HERE / ".env").is_file():
        yield ".env", HERE / ".env"
    platforms = app.plugins.registered("platforms").values()
    for path in sorted({one.cookies_file for one in platforms if one.cookies_file}):
        if path.is_file():
            inside = path.is_relative_to(data)
            name = f"data/{path.relative_to(data).as_posix()}" if inside else ""
            yield name, path


def without_secrets(text: str) -> tuple[str, list[str]]:
    """A TOML file in which no known secret is left, and the keys that were left out; ""
    when it cannot be told where a secret ends."""
    lines, keys = [], []
    for line in text.splitlines():
        if has_secret(line):
            keys.append(line.partition("=")[0].strip(" #"))
            line = f"# {keys[-1]} = a secret, which is not in the backup"
        lines.append(line)
    shown = "\n".join([*lines, ""])
    try:
        parse_toml(shown)
    except ValueError:
        shown = ""
    return ("", ["all of it"]) if has_secret(shown) or not shown else (shown, keys)


def has_secret(text: str) -> bool:
    mark = "[secret]"
    return redact(text).count(mark) > text.count(mark)


# Restore


async def restore(app: App, args: argparse.Namespace) -> int:
    """Put a backup in place; what was there before is kept. Returns 0.

    Raises:
        StartError: the bot runs.
        BossbotError: the file is no backup, or cannot be put in place.
    """
    file, data = args.file.absolute(), app.settings.data_dir
    if not file.is_file():
        raise BossbotError(f"{file}: no such file.")
    with contextlib.closing(lock_data(data)):
        for leftover in data.glob(".restore-*"):  # of one that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        staged = data / f".restore-{secrets.token_hex(4)}"
        staged.mkdir(0o700)
        try:
            manifest = unpack(file, staged)
            check_staged(app, staged)
            moved = not (data / "bossbot.db").exists()
            if manifest.get("running") or not moved:
                end_jobs(staged / "data" / "bossbot.db")
            said = put_in_place(app, staged)
        except sqlite3.DatabaseError as error:
            raise BossbotError(f"{file} is damaged: {error}.") from error
        except OSError as error:
            raise BossbotError(
                f"{error.filename or data}: {error.strerror}. Correct that, and restore "
                "once more."
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest["made_at"]))
    print(f"Restored what was there on {made}:")
    for line in said:
        print(f"  {line}")
    return 0


def unpack(file: Path, staged: Path) -> dict[str, Any]:
    """Unpack a whole backup into a folder; returns its manifest. Raises BossbotError
    when it is none, and OSError."""
    try:
        with gzip.open(file) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST:
                raise ValueError("it has no manifest")
            manifest = dict(json.loads(read_member(archive, first)))
            if int(manifest["form"]) > FORM:
                raise BossbotError(
                    f"{file} was written by Boss-Bot {manifest['version']}, and this is "
                    f"{bossbot.__version__}. Update the bot: git pull."
                )
            float(manifest["made_at"])
            for member in archive:
                if member is not first:
                    unpack_member(archive, member, staged)
            while raw.read(2**20):  # to the end, which has the check sum
                pass
    except BROKEN as error:
        raise BossbotError(f"{file} is no backup, or is damaged: {error}.") from error
    except OSError as error:
        if error.errno is None:  # gzip's own
            raise BossbotError(f"{file} is no backup: {error}.") from error
        raise
    return manifest


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None or member.size > 2**20:
        raise ValueError(f"{member.name} is no small file")
    return content.read()


def unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, staged: Path
) -> None:
    """Unpack one file; raises ValueError for what no backup of ours has."""
    name = PurePosixPath(member.name)
    inside = len(name.parts) > 1 and name.parts[0] in FOLDERS
    content = archive.extractfile(member) if member.isreg() else None
    if not inside or ".." in name.parts or name.is_absolute() or content is None:
        raise ValueError(f"it has a strange member, {member.name!r}")
    target = staged / name
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())


def check_staged(app: App, staged: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged database, and BossbotError for one that
    this bot is too old for."""
    for path in (staged / "data").glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            check_database(database, path)
            versions: Iterable[tuple[str, int]] = ()
            with contextlib.suppress(sqlite3.OperationalError):  # no such table
                versions = database.execute("SELECT plugin, version FROM migrations")
            for stem, version in versions:
                plugin = app.plugins.all.get(stem)
                if plugin and plugin.kind != "own" and version > len(plugin.tables) > 0:
                    raise BossbotError(
                        f"The backup has newer tables of {stem} than this bot knows. "
                        "Update the bot: git pull."
                    )


def end_jobs(path: Path) -> None:
    """End the jobs that were unfinished in a database: they may have been posted after
    the backup was made, and nothing is posted twice. Their members are told."""
    end = (
        "UPDATE jobs SET previous = status, status = 'failed', cause = ?, error = ?, "
        f"joins = '', finished_at = ? WHERE {UNFINISHED}"
    )
    if path.exists():
        with (
            contextlib.suppress(sqlite3.OperationalError),  # another queue's
            contextlib.closing(sqlite3.connect(path)) as database,
            database,
        ):
            database.execute(end, (str(Cause.INTERNAL), AGAIN, now()))


def put_in_place(app: App, staged: Path) -> list[str]:
    """Move what was unpacked to where it belongs, one file after the other; what was
    there is copied first. A crash leaves each file old or new, and restoring once more
    does the rest. Returns what was done, a line for each thing."""
    data, own, said = app.settings.data_dir, app.settings.plugins_dir, list[str]()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = data / f"before-restore-{stamp}-{secrets.token_hex(2)}"
    config = staged / "data" / "config.toml"
    if config.is_file() and "which is not in the backup" in config.read_text("utf-8"):
        if (data / "config.toml").exists():
            config.unlink()
            said.append("config.toml stays: the backup's has no secrets")
        else:
            said.append("config.toml lacks its secrets: it says which")
    guilds = {path.name for path in (staged / "data" / "guilds").glob("*.toml")}
    places = {"data": data, "plugins": own, "secrets/data": data, "secrets": HERE}
    for name, place in places.items():
        found = sorted((staged / name).rglob("*"))
        for path in [one for one in found if one.is_file()]:
            inside = path.relative_to(staged / name)
            target = place / inside
            put_aside(target, aside / name / inside)
            if place == data and target.suffix == ".db":
                close_database(target, aside / name)
            if place == data:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            else:
                write_atomically(target, path.read_bytes())
                path.unlink()
            if "guilds" not in target.parts:
                said.append(str(target))
    for path in (data / "guilds").glob("*.toml"):
        if path.name not in guilds:
            put_aside(path, aside / "data" / "guilds" / path.name)
            path.unlink()
    said.append(f"settings of servers: {len(guilds)}")
    if aside.exists():
        said.append(f"What was there before is in {aside}")
    return said


def put_aside(path: Path, copy: Path) -> None:
    """Keep a file as it is, if there is one, when it is about to be replaced."""
    if path.is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        try:
            os.link(path, copy)
        except OSError:  # it is on another disk
            shutil.copy2(path, copy)


def close_database(path: Path, aside: Path) -> None:
    """Have nothing beside a database that belongs to it: SQLite would take that for the
    new one's. What cannot be written back into it is kept aside."""
    if path.exists():
        with contextlib.suppress(sqlite3.Error):
            with contextlib.closing(sqlite3.connect(path, timeout=5)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            put_aside(path, aside / path.name)
    for suffix in ("-wal", "-shm"):
        left = path.with_name(path.name + suffix)
        put_aside(left, aside / left.name)
        left.unlink(missing_ok=True)
