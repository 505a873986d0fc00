"""Stores the files of jobs: in data/temp while they are downloaded, then in
data/downloads."""

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from bossbot_plugins._files import (
    TOO_DEEP_BYTES,
    remove_tree,
    size_of,
    write_atomically,
)
from bossbot_plugins._media import (
    ENTRIES,
    GUARD,
    KINDS,
    Found,
    mime_of,
    probed_mime,
    sniff,
    suffix_for,
)
from bossbot_plugins._mp4 import read_mp4
from bossbot_plugins._programs import find_programs
from bossbot_plugins._reasons import CUT
from loguru import logger

from bossbot import (
    App,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Part,
    Storage,
    Stored,
    hookimpl,
    public_url,
)

MAX_CACHE_BYTES = 64 * 2**20  # of a platform; engines keep a few
PAGE = 200  # folders that are looked at in one go
CONTENTS = ".contents"  # beside the guilds' folders: a folder for each content
SHA256 = "[0-9a-f]{64}"
PROBE_S = 20.0  # for ffprobe to look at one file
# Large files, up to so many, are not read again for their hash until they change.
LARGE_BYTES, MAX_HASHES = 2**20, 1000
_hashes: dict[tuple[int, ...], str] = {}  # by file and state, the newest last


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"storage": FileStorage}


def _measured(path: Path, folder: Path) -> tuple[MediaFile, bool]:
    """A file with what it seems to hold, and whether that is sure."""
    status = path.lstat()
    inside = path.parent == folder or path.resolve().is_relative_to(folder.resolve())
    if not stat.S_ISREG(status.st_mode) or not inside:
        raise JobFailed(Cause.INTERNAL, f"{path} is not a regular file of its job")
    sha256 = _hashes.get(_state(status), "")
    if not sha256:
        with path.open("rb") as file:
            if status.st_size < LARGE_BYTES:  # no buffer is made for it
                sha256 = hashlib.sha256(file.read(LARGE_BYTES)).hexdigest()
            else:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _remember(status, sha256)
    found = sniff(path) if status.st_size else Found("")
    return MediaFile(path, status.st_size, sha256, found.mime), found.sure


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What differs between two files, and when one of them changes."""
    identity = (status.st_dev, status.st_ino, status.st_size)
    return *identity, status.st_mtime_ns, status.st_ctime_ns


def _remember(status: os.stat_result, sha256: str) -> None:
    if status.st_size >= LARGE_BYTES:  # a small file may change as fast as it is hashed
        _hashes[_state(status)] = sha256
        for old in list(_hashes)[:-MAX_HASHES]:
            _hashes.pop(old, None)


def _media_or_refused(file: MediaFile) -> MediaFile:
    if file.mime.partition("/")[0] not in KINDS:
        held = "no media" if file.size else "nothing"
        raise JobFailed(Cause.NO_MEDIA, f"{file.name} holds {held}")
    return file


def lacks_its_end(path: Path) -> bool:
    """Whether an mp4 ends before its index, without which nothing can be read."""
    boxes = read_mp4(path)
    return bool(boxes and not boxes.whole)


def _open_cache(folder: Path) -> None:
    """Make a cache's folder, or empty one that has grown beyond use."""
    if size_of(folder, TOO_DEEP_BYTES) > MAX_CACHE_BYTES:
        remove_tree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def suffix_of(file: MediaFile) -> str:
    """The ending a file is posted with: its own where it suits what it holds."""
    return suffix_for(file.mime, file.path.suffix)


def safe_name(title: str, limit: int = 60) -> str:
    """A piece of a file name: ASCII letters, digits and hyphens, never empty."""
    plain = unicodedata.normalize("NFKD", title[:1000]).encode("ascii", "ignore")
    name = re.sub(r"[^A-Za-z0-9]+", "-", plain.decode()).strip("-")
    return name[:limit].strip("-") or "media"


class FileStorage(Storage):
    """The ``Storage`` in folders under ``data_dir``: ``temp/{job}/{claim number}`` for
    attempts, with ``.part`` for what was set apart, ``downloads/{guild}/{day}/{job}`` for what is kept. Its work is done in
    threads."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.data = app.settings.data_dir
        self.contents = self.data / "downloads" / CONTENTS
        self._sharing = threading.Lock()  # else two at once would not see each other

    async def inspect(self, path: Path, folder: Path) -> MediaFile:
        """See ``Storage``; ffprobe is asked about what its first bytes do not show."""
        file, sure = await asyncio.to_thread(_measured, path, folder)
        if not sure:
            mime = await self._probe(file, folder.with_name("home"))
            if (
                mime == ""
                and file.mime
                and await asyncio.to_thread(lacks_its_end, path)
            ):
                raise JobFailed(Cause.NO_MEDIA, f"{file.name}: cut short", CUT)
            file = dataclasses.replace(file, mime=file.mime if mime is None else mime)
        return _media_or_refused(file)

    async def _probe(self, file: MediaFile, home: Path) -> str | None:
        """What a file holds by ffprobe, "" for no media; None if it cannot be asked."""
        program = find_programs().get("ffprobe")
        if not program or not home.is_dir():
            return None
        words = ["-v", "error", *GUARD, "-of", "json", "-show_entries", ENTRIES]
        try:
            async with asyncio.timeout(PROBE_S):
                argv = [program, *words, f"file:{file.path.absolute()}"]
                ran = await self.app.runner.run(argv, home)
            return probed_mime(json.loads(ran.stdout), file.mime) if ran.stdout else ""
        except (OSError, JobFailed, AttributeError, TypeError, ValueError) as error:
            logger.info("ffprobe could not look at {}: {!r}", file.name, error)
            return None if file.mime else ""

    # Attempts

    async def attempt_folder(self, job: Job) -> Path:
        """See ``Storage``."""
        folder = self.data / "temp" / job.id / str(job.claim_number)

        def make() -> Path:
            self._forget_attempt(job)
            for name in ("files", "home"):
                (folder / name).mkdir(parents=True)
            return folder

        return await asyncio.to_thread(make)

    async def set_apart(self, job: Job, names: Sequence[str]) -> Path:
        """See ``Storage``."""
        attempt = self.data / "temp" / job.id / str(job.claim_number)
        part = attempt.with_suffix(".part")

        def copy() -> Path:
            remove_tree(part)
            for name in ("files", "home"):
                (part / name).mkdir(parents=True)
            for name in names:
                _copy(attempt / "files" / name, part / "files" / name)
            return part / "files"

        return await asyncio.to_thread(copy)

    async def forget_attempt(self, job: Job) -> None:
        """See ``Storage``."""
        await asyncio.to_thread(self._forget_attempt, job)

    def _forget_attempt(self, job: Job) -> None:
        folder = self.data / "temp" / job.id
        for attempt in _attempts(folder, job.claim_number):
            remove_tree(attempt)
        with contextlib.suppress(OSError):  # a newer attempt is there
            folder.rmdir()

    async def cache_folder(self, platform: str) -> Path:
        """See ``Storage``."""
        folder = self.data / "cache" / (platform or "other")
        await asyncio.to_thread(_open_cache, folder)
        return folder

    async def attempts_bytes(self, job_ids: Collection[str]) -> int:
        """See ``Storage``."""
        folders = [self.data / "temp" / job_id for job_id in job_ids]

        def total() -> int:
            return sum(size_of(one) for one in folders if not one.is_symlink())

        return await asyncio.to_thread(total)

    def leftovers(self) -> AsyncIterator[Stored]:
        """See ``Storage``."""
        temp = self.data / "temp"
        return _in_pages(_stored(temp / name, 0) for name in _names(temp))

    # Kept files

    async def keep(self, job: Job, files: Sequence[MediaFile]) -> list[MediaFile]:
        """See ``Storage``; ``metadata.json`` lies beside the files."""
        keeping = asyncio.create_task(asyncio.to_thread(self._keep, job, files))
        try:
            return await asyncio.shield(keeping)
        except asyncio.CancelledError:  # the thread goes on; then they can be removed
            await asyncio.wait([keeping])
            raise

    async def copy_kept(self, job: Job, folder: Path) -> list[Path]:
        """See ``Storage``."""
        content = self.data / job.folder / "content"

        def copy() -> list[Path]:
            copies = []
            try:
                for name, sha256 in _files_of(content.parent).items():
                    copies.append(folder / name)
                    _copy(content / name, folder / name)
                    if _measured(folder / name, folder)[0].sha256 != sha256:
                        raise FileNotFoundError(f"{content / name} has changed")
            except (OSError, JobFailed) as error:
                for path in copies:
                    _remove(path)
                raise FileNotFoundError(str(error)) from error
            return copies

        return await asyncio.to_thread(copy)

    def _keep(self, job: Job, files: Sequence[MediaFile]) -> list[MediaFile]:
        folder = self._kept_folder(job)
        content, about = folder / "content", folder / "metadata.json"
        known = {n for post in job.posts for n in post.files} if job.sources else set()
        for name in _names(content):
            if name not in known:
                _remove(content / name)
        first = max(map(number_of, known), default=0) + 1
        with self._sharing:
            kept = place_files(job, [f for f in files if not f.beside], content, first)
            for file in kept:
                self._share(job, file)
        _put_beside([f for f in files if f.beside], folder / "beside", known)
        facts = {
            key: job.facts.get(key) for key in ("title", "uploader", "date", "text")
        }
        metadata = {
            "job": job.id,
            "source_url": public_url(job),
            "platform": job.platform,
            "engine": job.engine,
            **facts,
            "files": [
                *_named(about, known),
                *(
                    {"name": f.name, "sha256": f.sha256, "size": f.size, "mime": f.mime}
                    for f in kept
                ),
            ],
            "beside": _names(folder / "beside"),
            "requester": job.user_id,
            "guild": job.guild_id,
            "channel": job.channel_id,
            "requested_at": datetime.fromtimestamp(job.created_at, UTC).isoformat(),
            "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        text = json.dumps(metadata, indent=2, ensure_ascii=False)
        temporary = about.with_name(f".{about.name}")
        temporary.touch(0o600)
        temporary.write_bytes(text.encode("utf-8", "replace"))
        temporary.replace(about)  # the disk gets it with the files
        job.folder = str(folder.relative_to(self.data))
        return kept

    async def sync(self, job: Job) -> None:
        """See ``Storage``: the files' contents, then their names."""
        folder = self.data / job.folder

        def sync() -> None:
            inside = [folder / "content", folder / "beside"]
            files = [one / name for one in inside for name in _names(one)]
            folders = [*filter(Path.is_dir, inside), folder, *folder.parents[:3]]
            for path in [folder / "metadata.json", *files, *folders]:
                _sync(path)

        await asyncio.to_thread(sync)

    def _share(self, job: Job, file: MediaFile) -> None:
        """Have a kept file share its place on the disk with another one that holds the
        same, and be found by the next. Each has a name of its own, so that what one job
        forgets stays for the other."""
        known, path = self.contents / file.sha256, file.path

        def holds(other: Path) -> bool:
            with contextlib.suppress(OSError, JobFailed):  # it may be gone, or changed
                return _measured(other, self.data)[0].sha256 == file.sha256
            return False

        with contextlib.suppress(OSError):  # not every file system can do it
            known.mkdir(parents=True, exist_ok=True)
            with os.scandir(known) as names:  # the first will do, of however many
                others = (Path(name.path).resolve() for name in names)
                other = next(filter(holds, others), path)
            if not other.samefile(path):
                aside = path.with_name(f".{path.name}")
                aside.unlink(missing_ok=True)
                os.link(other, aside)
                aside.replace(path)
                _remember(path.lstat(), file.sha256)
            (known / job.id).unlink(missing_ok=True)
            (known / job.id).symlink_to(os.path.relpath(path, known))

    def _forget_kept(self, folder: Path) -> None:
        """Remove a folder of kept files; what others share stays theirs."""
        shared = set[str]()
        with contextlib.suppress(OSError):
            shared = {*_files_of(folder).values()}
        _remove(folder)
        for sha256 in shared:
            with contextlib.suppress(OSError):
                (self.contents / sha256 / folder.name).unlink(missing_ok=True)
                (self.contents / sha256).rmdir()

    def _forget_gone(self) -> None:
        """Remove what leads to kept files that are gone."""
        for known in _folders(self.contents):
            with contextlib.suppress(OSError):
                for name in _names(known):
                    if not (known / name).exists():
                        (known / name).unlink()
                known.rmdir()  # if it is empty

    async def place(
        self, job: Job, files: Sequence[MediaFile], folder: Path
    ) -> list[MediaFile]:
        """See ``Storage``."""
        return await asyncio.to_thread(place_files, job, files, folder)

    async def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """See ``Storage``."""
        folder = self.data / job.folder / "content"

        def measure(name: str) -> MediaFile:
            file, _ = _measured(folder / name, folder)
            # Checked before they were kept: what ffprobe knew is in the ending.
            known = file.mime.partition("/")[0] in KINDS
            return file if known else dataclasses.replace(file, mime=mime_of(name))

        return await asyncio.to_thread(lambda: list(map(measure, names)))

    async def beside(self, job: Job) -> list[MediaFile]:
        """See ``Storage``."""
        folder = self.data / job.folder / "beside"

        def measure(name: str) -> MediaFile:
            file, _ = _measured(folder / name, folder)
            return dataclasses.replace(file, beside=True)

        if not job.folder:
            return []
        return await asyncio.to_thread(lambda: list(map(measure, _names(folder))))

    def kept(self) -> AsyncIterator[Stored]:
        """See ``Storage``. Folders of days that are empty are removed on the way."""
        return _in_pages(self._kept())

    def _kept(self) -> Iterator[Stored]:
        for guild in _folders(self.data / "downloads"):
            if guild == self.contents:
                continue
            guild_id = int(guild.name) if guild.name.isdecimal() else 0
            for day in _folders(guild):
                for folder in _folders(day):
                    yield _stored(folder, guild_id, shared=True)
                if time.time() - _changed_at(day) > 60:  # else a job may need it soon
                    with contextlib.suppress(OSError):  # it is not empty
                        day.rmdir()
        self._forget_gone()

    def _kept_folder(self, job: Job) -> Path:
        day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
        return self.data / "downloads" / str(job.guild_id) / day / job.id

    async def forget(self, job: Job) -> None:
        """See ``Storage``."""
        await asyncio.to_thread(self._forget_kept, self._kept_folder(job))

    async def remove(self, stored: Stored, before: int | None = None) -> None:
        """See ``Storage``."""

        def remove() -> None:
            if before is None or stored.path.is_symlink():
                self._forget_kept(stored.path)
                return
            for attempt in _attempts(stored.path, before):
                _remove(attempt)

        await asyncio.to_thread(remove)

    async def note(self, guild_id: int, name: str, facts: dict[str, Any]) -> None:
        """See ``Storage``."""
        path = self.data / "downloads" / str(guild_id) / name
        data = json.dumps(facts).encode()
        await asyncio.to_thread(write_atomically, path, data)


def place_files(
    job: Job, files: Sequence[MediaFile], folder: Path, first: int = 1
) -> list[MediaFile]:
    """Move files into a folder as ``{timestamp}_{title}_{job}_{number}.{suffix}``."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(job.created_at))
    stem = f"{stamp}_{safe_name(job.title)}_{job.id}"
    placed = []
    for number, file in enumerate(files, first):
        path = folder / f"{stem}_{number:02}.{suffix_of(file)}"
        known = _hashes.pop(_state(file.path.lstat()), "") == file.sha256
        shutil.move(file.path, path)
        if known:
            _remember(path.lstat(), file.sha256)
        placed.append(dataclasses.replace(file, path=path))
    return placed


def _put_beside(
    files: Sequence[MediaFile], folder: Path, known: Collection[str]
) -> None:
    """Move files into a folder, by the ends of their names: "0001.en.srt" is of the
    first file."""
    if not known:
        remove_tree(folder)
    for file in files:
        folder.mkdir(parents=True, exist_ok=True)
        end = re.sub(r"[^\w.-]", "", file.name.rpartition("_")[2], flags=re.ASCII)
        shutil.move(file.path, folder / end.lstrip(".")[-60:])


def number_of(name: str) -> int:
    """A placed file's number in its job."""
    number = Path(name).stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else 0


def _files_of(folder: Path) -> dict[str, str]:
    """The kept files in a folder, in order, and their SHA-256, by its metadata; raises
    OSError if that is missing or broken."""
    try:
        files = json.loads((folder / "metadata.json").read_text("utf-8"))["files"]
        found = {str(one["name"]): str(one["sha256"]) for one in files}
    except (ValueError, LookupError, TypeError) as error:
        raise FileNotFoundError(f"{folder}: {error!r}") from error
    if not all(Path(n).name == n and re.fullmatch(SHA256, s) for n, s in found.items()):
        raise FileNotFoundError(f"{folder}: these are no names of files")
    return found


def _named(about: Path, names: Collection[str]) -> list[Any]:
    """What a ``metadata.json`` says of some files."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        files = json.loads(about.read_text("utf-8"))["files"]
        return [one for one in files if one["name"] in names]
    return []


def _copy(source: Path, target: Path) -> None:
    """Copy a regular file, of which a process may make something else any time."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it is gone, or a link
        return
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with open(descriptor, "rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 2**18)
    else:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems do not do it for folders
            raise
    finally:
        os.close(descriptor)


async def _in_pages(walk: Iterator[Stored]) -> AsyncIterator[Stored]:
    """What a walk through folders finds; it goes on in a thread, some at a time."""
    while page := await asyncio.to_thread(lambda: list(islice(walk, PAGE))):
        for stored in page:
            yield stored


def _stored(path: Path, guild_id: int, shared: bool = False) -> Stored:
    size_bytes = size_of(path, shared=shared)
    return Stored(path.name, guild_id, path, size_bytes, _changed_at(path))


def _attempts(folder: Path, last: int) -> list[Path]:
    """The folders of a job's attempts, up to a claim number."""
    names = [name for name in _names(folder) if Path(name).stem.isdecimal()]
    return [folder / name for name in names if int(Path(name).stem) <= last]


def _folders(folder: Path) -> Iterator[Path]:
    """Folders in a folder, in order; no links."""
    paths = (folder / name for name in _names(folder))
    return (path for path in paths if not path.is_symlink() and path.is_dir())


def _names(folder: Path) -> list[str]:
    """Of the contents of a folder, in order."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []


def _changed_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return time.time()


def _remove(path: Path) -> None:
    """Remove a folder with everything in it, or a file; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
