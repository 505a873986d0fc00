"""Where the files of jobs are: data/temp while they come, data/downloads to stay."""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filetype
from bossbot_plugins._files import size_of

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
    write_atomically,
)

# What may be posted: media whose content says so, whatever its name, and plain text.
MEDIA_SUFFIXES = {
    "image": "jpg jpeg png gif webp avif heic heif bmp tif tiff",
    "video": "mp4 m4v mov webm mkv avi flv 3gp mpg mpeg wmv ts",
    "audio": "mp3 m4a aac ogg oga opus flac wav weba aif aiff amr",
    "text": "txt srt vtt lrc",
}


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"storage": FileStorage}


def inspect_file(path: Path, folder: Path) -> MediaFile:
    """See ``Storage.inspect``; reads the whole file."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or not path.resolve().is_relative_to(
        folder.resolve()
    ):
        raise JobFailed(Cause.INTERNAL, f"{path} is no regular file of its job")
    with path.open("rb") as file:
        head = file.read(8192)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    suffix = path.suffix.lower().lstrip(".")
    kind = filetype.guess(head)
    mime = kind.mime if kind else ""
    # MPEG-TS, unknown to filetype: packets of 188 bytes.
    if not mime and not _is_text(head) and head[:377:188] == b"GGG":
        mime = "video/mp2t"
    if not mime and suffix in MEDIA_SUFFIXES["text"].split() and _is_text(head):
        mime = "text/plain"
    if not status.st_size or mime.split("/")[0] not in MEDIA_SUFFIXES:
        raise JobFailed(Cause.NO_MEDIA, f"{path.name} holds {mime or 'no media'}")
    return MediaFile(path, status.st_size, sha256, mime)


def _is_text(head: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        text = head.decode("utf-8", "strict" if len(head) < 8192 else "ignore")
        return not re.search(r"[\x00-\x08\x0e-\x1f]|^\s*(<|#EXT|ffconcat)", text)
    return False


def suffix_of(file: MediaFile) -> str:
    """The ending a file is posted with: its own where it suits what it holds."""
    own = file.path.suffix.lower().lstrip(".")
    if own in MEDIA_SUFFIXES[file.mime.split("/")[0]].split():
        return own
    kind = filetype.get_type(mime=file.mime)
    return str(kind.extension) if kind else "txt" if "text" in file.mime else "ts"


def safe_name(title: str, limit: int = 60) -> str:
    """A piece of a file name: ASCII letters, digits and hyphens, never empty."""
    plain = unicodedata.normalize("NFKD", title[:1000]).encode("ascii", "ignore")
    name = re.sub(r"[^A-Za-z0-9]+", "-", plain.decode()).strip("-")
    return name[:limit].strip("-") or "media"


class FileStorage(Storage):
    """The ``Storage`` in folders under ``data_dir``: ``temp/{job}/{claim number}`` for
    attempts, ``downloads/{guild}/{day}/{job}`` for what is kept. Its work is done in
    threads."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.data = app.settings.data_dir

    async def inspect(self, path: Path, folder: Path) -> MediaFile:
        """See ``Storage``."""
        return await asyncio.to_thread(inspect_file, path, folder)

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

    async def forget_attempt(self, job: Job) -> None:
        """See ``Storage``."""
        await asyncio.to_thread(self._forget_attempt, job)

    def _forget_attempt(self, job: Job) -> None:
        folder = self.data / "temp" / job.id
        for attempt in _attempts(folder, job.claim_number):
            shutil.rmtree(attempt, ignore_errors=True)
        with contextlib.suppress(OSError):  # a newer attempt is there
            folder.rmdir()

    async def cache_folder(self, platform: str) -> Path:
        """See ``Storage``."""
        folder = self.data / "cache" / (platform or "other")
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        return folder

    async def attempts_bytes(self) -> int:
        """See ``Storage``."""
        return await asyncio.to_thread(size_of, self.data / "temp")

    async def leftovers(self) -> AsyncIterator[Stored]:
        """See ``Storage``."""
        for path in await asyncio.to_thread(_entries, self.data / "temp"):
            yield await asyncio.to_thread(_stored, path, 0)

    # Kept files

    async def keep(self, job: Job, files: Sequence[MediaFile]) -> list[MediaFile]:
        """See ``Storage``; ``metadata.json`` lies beside the files."""
        return await asyncio.to_thread(self._keep, job, files)

    def _keep(self, job: Job, files: Sequence[MediaFile]) -> list[MediaFile]:
        day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
        folder = self.data / "downloads" / str(job.guild_id) / day / job.id
        shutil.rmtree(folder, ignore_errors=True)
        kept = place_files(job, files, folder / "content")
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
                {"name": f.name, "sha256": f.sha256, "size": f.size, "mime": f.mime}
                for f in kept
            ],
            "requester": job.user_id,
            "guild": job.guild_id,
            "channel": job.channel_id,
            "requested_at": datetime.fromtimestamp(job.created_at, UTC).isoformat(),
            "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        text = json.dumps(metadata, indent=2, ensure_ascii=False)
        write_atomically(folder / "metadata.json", text.encode("utf-8", "replace"))
        job.folder = str(folder.relative_to(self.data))
        return kept

    async def place(
        self, job: Job, files: Sequence[MediaFile], folder: Path
    ) -> list[MediaFile]:
        """See ``Storage``."""
        return await asyncio.to_thread(place_files, job, files, folder)

    async def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """See ``Storage``."""
        folder = self.data / job.folder / "content"

        def inspect() -> list[MediaFile]:
            return [inspect_file(folder / name, folder) for name in names]

        return await asyncio.to_thread(inspect)

    async def kept(self) -> AsyncIterator[Stored]:
        """See ``Storage``. Folders of days that are empty are removed on the way."""
        for guild in await asyncio.to_thread(_folders, self.data / "downloads"):
            guild_id = int(guild.name) if guild.name.isdecimal() else 0
            for day in await asyncio.to_thread(_folders, guild):
                for folder in await asyncio.to_thread(_folders, day):
                    yield await asyncio.to_thread(_stored, folder, guild_id)
                if time.time() - _changed_at(day) > 60:  # else a job may need it soon
                    with contextlib.suppress(OSError):  # it is not empty
                        day.rmdir()

    async def remove(self, stored: Stored, before: int | None = None) -> None:
        """See ``Storage``."""

        def remove() -> None:
            if before is None or stored.path.is_symlink():
                _remove(stored.path)
                return
            for attempt in _attempts(stored.path, before):
                _remove(attempt)

        await asyncio.to_thread(remove)

    async def note(self, guild_id: int, name: str, facts: dict[str, Any]) -> None:
        """See ``Storage``."""
        path = self.data / "downloads" / str(guild_id) / name
        data = json.dumps(facts).encode()
        await asyncio.to_thread(write_atomically, path, data)


def place_files(job: Job, files: Sequence[MediaFile], folder: Path) -> list[MediaFile]:
    """Move files into a folder as ``{timestamp}_{title}_{job}_{number}.{suffix}``."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(job.created_at))
    stem = f"{stamp}_{safe_name(job.title)}_{job.id}"
    placed = []
    for number, file in enumerate(files, 1):
        path = folder / f"{stem}_{number:02}.{suffix_of(file)}"
        shutil.move(file.path, path)
        placed.append(dataclasses.replace(file, path=path))
    return placed


def _stored(path: Path, guild_id: int) -> Stored:
    return Stored(path.name, guild_id, path, size_of(path), _changed_at(path))


def _attempts(folder: Path, last: int) -> list[Path]:
    """The folders of a job's attempts, up to a claim number."""
    numbered = [path for path in _entries(folder) if path.name.isdecimal()]
    return [path for path in numbered if int(path.name) <= last]


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder, in order; no links."""
    return [p for p in _entries(folder) if not p.is_symlink() and p.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """The contents of a folder, in order."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def _changed_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return time.time()


def _remove(path: Path) -> None:
    """Remove a folder with everything in it, or a file; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
