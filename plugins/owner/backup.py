"""``backup`` and ``restore``: the bot's data in one file, even while the bot runs."""

import argparse
import contextlib
import errno
import gzip
import io
import json
import os
import re
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
    one_line,
    parse_toml,
    plugin_folders,
    redact,
)

FORM = 1  # of the file; a newer one is refused
MANIFEST = "manifest.json"
MAX_FILES = 100_000  # settings of that many servers
MAX_READ = 2**24  # bytes at once: the entries before a file in the archive are small
UNFINISHED = "status IN ('queued', 'downloading', 'processing', 'uploading')"
AGAIN = N_(
    "The bot was restored from a backup. If the files of this link are missing, paste "
    "it again."
)
BROKEN = (
    *(tarfile.TarError, EOFError, zlib.error, ValueError, KeyError, TypeError),
    *(ArithmeticError, RecursionError),
)


@hookimpl
def register_subcommands() -> list[Subcommand]:
    return [
        Subcommand("backup", "write the bot's data to a file", back_up, to_file),
        Subcommand("restore", "restore a backup", restore, from_file),
    ]


def to_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="for example backup.tar.gz")
    parser.add_argument(
        "--with-secrets",
        action="store_true",
        help="also the token, cookies, and other secrets",
    )


def from_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a file that `backup` wrote")


# Backup


async def back_up(app: App, args: argparse.Namespace) -> int:
    """Write a backup, whole or not at all; returns 0.

    Raises:
        BossbotError: it cannot be written, or a database is damaged.
    """
    if str(args.file) == "-":
        raise BossbotError("A backup is a file, and not printed. Name one.")
    file = Path(os.path.realpath(args.file))  # a link goes on leading there
    try:
        check_place(file)
        # Beside the file, so that it can be put in place in one step.
        prefix = f".{file.name}."
        for leftover in file.parent.glob(f"{prefix}*/"):  # of one that was killed
            if leftover.stat().st_mtime < time.time() - 86400:
                shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=file.parent) as scratch:
            made = Path(scratch) / "backup"
            said = write_backup(app, made, Path(scratch), args.with_secrets)
            made.replace(file)
    except (sqlite3.DatabaseError, OSError) as error:
        raise BossbotError(why_not_made(error, file)) from error
    print(f"{file}: {format_size(file.stat().st_size)}")
    for line in said:
        print(f"  {line}")
    return 0


def check_place(file: Path) -> None:
    """Raise BossbotError if a backup cannot be there, OSError if that is unknown."""
    if file.is_dir():
        raise BossbotError(f"{file} is a folder. Name a file in it.")
    if not file.parent.is_dir():
        raise BossbotError(f"{file.parent} is not a folder. Create it first.")
    if file.exists() and not (file.is_file() and is_backup(file)):
        raise BossbotError(f"{file} exists, and is not a backup. Choose another name.")


def why_not_made(error: OSError | sqlite3.DatabaseError, file: Path) -> str:
    """The problem, and what the owner can do about it."""
    if isinstance(error, sqlite3.DatabaseError):
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            error = OSError(errno.ENOSPC, "")
        else:
            return (
                f"A database cannot be copied: {one_line(str(error))}. Try again; if it "
                "is damaged, stop the bot, and restore an earlier backup."
            )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"There is no room for a backup in {file.parent}. Make some, or use another disk."
    wrong = error.strerror or error
    if error.filename and not Path(error.filename).is_relative_to(file.parent):
        return f"{error.filename} cannot be read: {wrong}. Correct that."
    return f"{file} cannot be written: {wrong}. Choose another folder."


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
    own = app.settings.plugins_dir
    return [
        (path.relative_to(own).as_posix(), path)
        for entry in sorted(own.iterdir())
        if is_own(app, entry)
        for path in files_in(entry)
    ]


def is_own(app: App, entry: Path) -> bool:
    """Whether something in the folder of own plugins is the owner's."""
    _, *ours = plugin_folders(app.settings.plugins_dir, app.plugins.ours)
    return not (
        entry.name in ("README.md", "__pycache__")
        or entry.name.startswith(".")
        or entry.resolve() in {shelf.resolve() for shelf in ours}
    )


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
    when the end of a secret cannot be found."""
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
    """Restore a backup; the old data is kept. Returns 0.

    Raises:
        StartError: the bot runs.
        BossbotError: the file is not a backup, or cannot be put in place.
    """
    file, data = args.file.absolute(), app.settings.data_dir
    if not os.path.isfile(file):  # which is False, too, where one may not look
        wrong = "is not a file" if os.path.exists(file) else "no such file"
        raise BossbotError(f"{file}: {wrong}. Name one that `backup` wrote.")
    with contextlib.closing(lock_data(data)):
        for leftover in data.glob(".restore-*"):  # of one that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        staged = data / f".restore-{secrets.token_hex(4)}"
        staged.mkdir(0o700)
        try:
            manifest = unpack(app, file, staged)
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest["made_at"]))
            check_staged(app, staged)
            moved = not (data / "bossbot.db").exists()
            if manifest.get("running") or not moved:
                end_jobs(staged / "data" / "bossbot.db")
            said = put_in_place(app, staged)
        except sqlite3.DatabaseError as error:
            wrong = one_line(str(error))
            raise BossbotError(
                f"{file} is damaged: {wrong}. Try an earlier one."
            ) from error
        except OSError as error:
            raise BossbotError(
                f"{error.filename or data}: {error.strerror}. Correct that, and restore "
                "again."
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    print(f"Restored the data of {made}:")
    for line in said:
        print(f"  {line}")
    return 0


class Careful(gzip.GzipFile):
    """Unpacks no more at once than one of our archives needs, whatever it says."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise ValueError("it has a part that is too large")
        return super().read(size)


def unpack(app: App, file: Path, staged: Path) -> dict[str, Any]:
    """Unpack a whole backup into a folder; returns its manifest. Raises BossbotError
    when it is none, and OSError."""
    try:
        with Careful(file) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST:
                raise ValueError("it has no manifest")
            manifest = dict(json.loads(read_member(archive, first)))
            if int(manifest["form"]) > FORM:
                version = one_line(str(manifest["version"]))[:20]
                raise BossbotError(
                    f"{file} was written by Boss-Bot {version}, and this is "
                    f"{bossbot.__version__}. Update the bot: git pull."
                )
            time.localtime(float(manifest["made_at"]))
            for number, member in enumerate(archive):
                if number > MAX_FILES:
                    raise ValueError("it has too many files")
                if member is not first:
                    unpack_member(app, archive, member, staged)
            while raw.read(2**20):  # to the end, which has the check sum
                pass
    except BROKEN as error:
        raise BossbotError(
            f"{file} is not a backup, or is damaged: {one_line(str(error))}. Name another "
            "one that `backup` wrote."
        ) from error
    except OSError as error:
        if error.errno is None:  # gzip's own
            raise BossbotError(
                f"{file} is not a backup: {error}. Name one that `backup` wrote."
            ) from error
        raise
    return manifest


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None or member.size > 2**20:
        raise ValueError(f"{member.name!r} is not a small file")
    return content.read()


def unpack_member(
    app: App, archive: tarfile.TarFile, member: tarfile.TarInfo, staged: Path
) -> None:
    """Unpack one file; raises ValueError for what no backup of ours has."""
    name = PurePosixPath(member.name)
    content = archive.extractfile(member) if member.isreg() else None
    if content is None or not belongs(app, name):
        raise ValueError(f"it has an unexpected member, {member.name!r}")
    free = shutil.disk_usage(staged).free
    if member.size > free:
        raise BossbotError(
            f"{member.name!r} takes {format_size(member.size)}, and only "
            f"{format_size(free)} are free in {app.settings.data_dir}. Make room there."
        )
    target = staged / name
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())


def belongs(app: App, name: PurePosixPath) -> bool:
    """Whether a backup may have a member of this name: nothing gets where the bot's own
    code is, or beside a database."""
    if ".." in name.parts or name.is_absolute():
        return False
    match name.parts:
        case ("data", file):
            return file in ("worker", "config.toml") or file.endswith(".db")
        case ("data", "guilds", _, *_) | ("secrets", ".env"):
            return True
        case ("secrets", "data", *_, file):
            return not re.search(r"\.db(-\w+)?$", file)
        case ("plugins", entry, *_):
            return is_own(app, app.settings.plugins_dir / entry)
    return False


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
                        f"The backup has newer tables of {stem} than this bot supports. "
                        "Update the bot: git pull."
                    )


def end_jobs(path: Path) -> None:
    """End the jobs that were unfinished in a database: they may have been posted after
    the backup was made, and nothing is posted twice. Their members get a message."""
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
    """Move the unpacked files to their places, one after the other; old files are
    copied first. A crash leaves each file old or new, and another restore does the
    rest. Returns a line for each step."""
    data, own, said = app.settings.data_dir, app.settings.plugins_dir, list[str]()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = data / f"before-restore-{stamp}-{secrets.token_hex(2)}"
    config = staged / "data" / "config.toml"
    if config.is_file() and "which is not in the backup" in config.read_text("utf-8"):
        if (data / "config.toml").exists():
            config.unlink()
            said.append("config.toml stays: the backup's has no secrets")
        else:
            said.append("config.toml lacks its secrets: comments in it show where")
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
                try:
                    write_atomically(target, path.read_bytes())
                except OSError as error:
                    if place != HERE:
                        raise
                    said.append(  # as in a container, whose token comes from elsewhere
                        f"left out: {target} ({error.strerror}); in the backup, it is "
                        f"{name}/{inside}"
                    )
                    continue
            if "guilds" not in target.parts:
                said.append(str(target))
    for path in (data / "guilds").glob("*.toml"):
        if path.name not in guilds:
            put_aside(path, aside / "data" / "guilds" / path.name)
            path.unlink()
    said.append(f"settings of servers: {len(guilds)}")
    if aside.exists():
        said.append(f"The old data is in {aside}")
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
