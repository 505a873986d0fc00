"""Where the files of jobs are: data/temp while they come, data/downloads to stay."""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import stat
import time
import tomllib
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filetype
import tomli_w
from loguru import logger
from pydantic import ValidationError

from bossbot import (
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Pipeline,
    PluginConfig,
    Refused,
    Storage,
    explain,
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


@hookimpl(trylast=True)  # any other storage is there because the host wants it
def register_storage(pipeline: Pipeline) -> Storage:
    return FileStorage(pipeline.settings.data_dir)


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


class FileStorage:
    """The ``Storage`` in folders under ``data_dir``."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def inspect(self, path: Path, folder: Path) -> MediaFile:
        """See ``Storage``."""
        return inspect_file(path, folder)

    def attempt_folder(self, job: Job) -> Path:
        """See ``Storage``."""
        folder = self.data / "temp" / job.id / str(job.fence)
        self.forget_attempt(job)
        for name in ("files", "home"):
            (folder / name).mkdir(parents=True)
        return folder

    def forget_attempt(self, job: Job) -> None:
        """See ``Storage``."""
        folder = self.data / "temp" / job.id
        for attempt in folder.glob("[0-9]*"):
            if int(attempt.name) <= job.fence:
                shutil.rmtree(attempt, ignore_errors=True)
        with contextlib.suppress(OSError):  # a newer attempt is there
            folder.rmdir()

    def keep(
        self, job: Job, files: Sequence[MediaFile], facts: dict[str, Any]
    ) -> list[MediaFile]:
        """See ``Storage``; ``metadata.json`` lies beside the files."""
        day = datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%d")
        folder = self.data / "downloads" / str(job.guild_id) / day / job.id
        shutil.rmtree(folder, ignore_errors=True)
        kept = self.place(job, files, folder / "content")
        metadata = {
            "job": job.id,
            "source_url": public_url(job),
            "platform": job.platform,
            "engine": job.engine,
            **{key: facts.get(key) for key in ("title", "uploader", "date", "text")},
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
        write_atomically(
            folder / "metadata.json",
            json.dumps(metadata, indent=2, ensure_ascii=False).encode(
                "utf-8", "replace"
            ),
        )
        job.folder = str(folder.relative_to(self.data))
        return kept

    def place(
        self, job: Job, files: Sequence[MediaFile], folder: Path
    ) -> list[MediaFile]:
        """Move files into a folder as ``{timestamp}_{title}_{job}_{number}.{suffix}``."""
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(job.created_at))
        stem = f"{stamp}_{safe_name(job.title)}_{job.id}"
        kept = []
        for number, file in enumerate(files, 1):
            path = folder / f"{stem}_{number:02}.{suffix_of(file)}"
            shutil.move(file.path, path)
            kept.append(dataclasses.replace(file, path=path))
        return kept

    def kept_files(self, job: Job, names: Sequence[str]) -> list[MediaFile]:
        """See ``Storage``."""
        folder = self.data / job.folder / "content"
        return [inspect_file(folder / name, folder) for name in names]

    def _guild_tables(self, guild_id: int) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            return tomllib.loads(self._guild_file(guild_id).read_text("utf-8"))
        return {}

    def _guild_file(self, guild_id: int) -> Path:
        return self.data / "guilds" / f"{guild_id}.toml"

    def guild_settings(
        self, guild_id: int, stem: str, model: type[PluginConfig]
    ) -> Any:
        """See ``Storage``."""
        try:
            return model(**self._guild_tables(guild_id).get(stem, {}))
        except (OSError, TypeError, ValueError) as error:
            logger.warning("{} [{}]: {}", self._guild_file(guild_id), stem, error)
            return model()

    def set_guild_setting(
        self, guild_id: int, stem: str, model: type[PluginConfig], key: str, value: Any
    ) -> Any:
        """See ``Storage``."""
        path = self._guild_file(guild_id)
        try:
            tables = self._guild_tables(guild_id)
            settings = model(**{**tables.get(stem, {}), key: value})
        except ValidationError as error:
            wrong = explain(error, known=model.model_fields)
            raise Refused("; ".join(wrong)) from None
        except (OSError, TypeError, ValueError) as error:
            logger.error("{}: {}", path, error)
            raise Refused("This server's settings file is broken.") from None
        tables[stem] = settings.model_dump(
            mode="json", exclude_defaults=True, exclude_none=True
        )
        write_atomically(path, tomli_w.dumps(tables).encode())
        return settings
