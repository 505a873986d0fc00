"""Storage: names, what may be posted, the folders."""

import asyncio
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

import media
import pytest
from bossbot_plugins._files import remove_tree
from bossbot_plugins.file_storage import FileStorage, safe_name, suffix_of
from conftest import MakeSettings, make_job
from hypothesis import given, settings
from hypothesis import strategies as st

from bossbot import (
    App,
    Cause,
    Job,
    JobFailed,
    MediaFile,
    Post,
    Settings,
    Storage,
    Stored,
    prepare_data,
)

TITLES = st.text(st.characters(), max_size=300) | st.lists(
    st.sampled_from(
        ["../", "/", "\\", "CON", ".", "é", "漢字", "😀", "\u202e", "\0", "-"]
    )
    | st.text(st.characters(), max_size=9)
).map("".join)
EXAMPLES = settings(deadline=None)


@pytest.fixture
def storage(make_settings: MakeSettings) -> FileStorage:
    prepare_data(make_settings().data_dir)
    return FileStorage(App(make_settings()))


# Names


@EXAMPLES
@given(TITLES, st.integers(1, 80))
def test_safe_name_is_plain_short_and_never_empty(title: str, limit: int) -> None:
    name = safe_name(title, limit)
    assert re.fullmatch(r"[A-Za-z0-9]+(-+[A-Za-z0-9]+)*", name)
    assert len(name) <= max(limit, len("media"))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Hello, world!", "Hello-world"),
        ("Café Ünïcode", "Cafe-Unicode"),
        ("../../etc/passwd", "etc-passwd"),
        ("漢字", "media"),
        ("", "media"),
        ("a" * 100, "a" * 60),
        ("...", "media"),
    ],
)
def test_safe_name_of_a_title(title: str, name: str) -> None:
    assert safe_name(title) == name


# What may be posted

PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("page.jpg", b"<!DOCTYPE html><html><body>hi</body></html>"),
        ("page.txt", b"<html><script>alert(1)</script></html>"),
        ("page.html", b"<html></html>"),
        ("list.mp4", PLAYLIST.encode()),
        ("list.txt", PLAYLIST.encode()),
        ("list.m3u8", PLAYLIST.encode()),
        ("concat.mp4", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        ("concat.txt", b"ffconcat version 1.0\nfile /etc/passwd\n"),
        ("setup.exe", b"MZ" + bytes(100)),
        ("setup.jpg", b"MZ" + bytes(100)),
        ("elf.mp4", b"\x7fELF" + bytes(100)),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>"),
        ("drawing.jpg", b"<?xml version='1.0'?><svg xmlns='x'></svg>"),
        ("link.url", b"[InternetShortcut]\nURL=https://evil\n"),
        ("link.desktop", b"[Desktop Entry]\nExec=rm\n"),
        ("link.webloc", b"<?xml version='1.0'?><plist></plist>"),
        ("words", b"just words"),
        ("data.json", b"{}"),
        ("file.zip", b"PK\x03\x04" + bytes(100)),
        ("paper.pdf", b"%PDF-1.4\n"),
        ("noise.mp4", bytes(range(1, 256)) * 40),
        ("nul.txt", b"text\0text"),
        ("latin.txt", b"caf\xe9 cr\xe8me"),
    ],
)
async def test_what_is_no_media_is_refused_whatever_its_name(
    storage: FileStorage, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(JobFailed) as caught:
        await storage.inspect(path, tmp_path)
    assert caught.value.cause is Cause.NO_MEDIA


async def test_symlink_is_refused(storage: FileStorage, tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("words")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real.txt")
    with pytest.raises(JobFailed):
        await storage.inspect(link, tmp_path)


async def test_file_outside_of_the_jobs_folder_is_refused(
    storage: FileStorage, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "job", tmp_path / "job2"
    folder.mkdir()
    outside.mkdir()
    (outside / "a.txt").write_text("words")
    (folder / "way").symlink_to(outside)
    for path in (
        outside / "a.txt",
        folder / ".." / "job2" / "a.txt",
        folder / "way/a.txt",
    ):
        with pytest.raises(JobFailed, match="inside the bot"):
            await storage.inspect(path, folder)


async def test_pipe_or_folder_is_refused_at_once(
    storage: FileStorage, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(JobFailed):
            await storage.inspect(tmp_path / name, tmp_path)


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        ("jpg", "image/jpeg"),
        ("png", "image/png"),
        ("gif", "image/gif"),
        ("webp", "image/webp"),
        ("mp4", "video/mp4"),
        ("webm", "video/webm"),
        ("mp3", "audio/mpeg"),
        ("m4a", "audio/mp4"),
    ],
)
async def test_real_media_is_recognised_whatever_its_name(
    storage: FileStorage, tmp_path: Path, media_folder: Path, kind: str, mime: str
) -> None:
    if kind in ("mp3", "m4a"):
        made = media.audio(media_folder, kind=kind)
    elif kind in ("mp4", "webm"):
        made = media.video(media_folder, kind=kind)
    else:
        made = media.image(media_folder, kind=kind)
    content = made.read_bytes()
    file = await storage.inspect(made, media_folder)
    assert file.mime in (mime, mime.replace("/mp4", "/m4a"), "audio/x-m4a")
    assert file == MediaFile(
        made, len(content), hashlib.sha256(content).hexdigest(), file.mime
    )
    assert suffix_of(file) == kind
    for name in ("photo.exe", "noname", "page.html", "a.jpg png"):
        shutil.copy(made, tmp_path / name)
        assert suffix_of(await storage.inspect(tmp_path / name, tmp_path)) == kind


async def test_gif_is_no_transport_stream(
    storage: FileStorage, tmp_path: Path, media_folder: Path
) -> None:
    content = bytearray(media.image(media_folder, kind="gif").read_bytes())
    content[188:189] = b"G"
    path = tmp_path / "a.gif"
    path.write_bytes(content)
    assert suffix_of(await storage.inspect(path, tmp_path)) == "gif"


async def test_transport_stream_and_text_are_media_too(
    storage: FileStorage, tmp_path: Path
) -> None:
    stream, words, subtitles = (tmp_path / n for n in ("a.bin", "b.TXT", "c.srt"))
    stream.write_bytes((b"G" + bytes(187)) * 50)
    words.write_text("Grüße, 漢字\n" * 2000)
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\n<i>Hi</i>\n")
    files = [
        await storage.inspect(path, tmp_path) for path in (stream, words, subtitles)
    ]
    assert [suffix_of(file) for file in files] == ["ts", "txt", "srt"]


@EXAMPLES
@given(
    st.binary(max_size=300)
    | st.sampled_from(
        [b"GIF89a", b"\xff\xd8\xff", b"RIFF", b"\0\0\0\x20ftyp", b"\x1aE\xdf\xa3", b"G"]
    ).flatmap(lambda head: st.binary(max_size=400).map(lambda rest: head + rest)),
    st.sampled_from(["jpg", "mp4", "txt", "exe", "html", "", "jpg png"]),
)
def test_any_content_is_either_refused_or_gets_a_safe_ending(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"any.{suffix}"
    path.write_bytes(content)
    storage = FileStorage(App(Settings(data_dir=folder)))
    try:
        ending = suffix_of(asyncio.run(storage.inspect(path, folder)))
    except JobFailed:
        return
    assert re.fullmatch(r"[a-z0-9]{2,5}", ending)
    assert ending not in ("exe", "html", "svg", "url", "desktop", "webloc", "m3u8")


# Where files are


FACTS = {
    "title": "My / Title!",
    "uploader": "ada",
    "date": "2026-01-02",
    "text": "Grüße \U0001f600",
    "items": 12,
    "cookies": "never written",
}


def a_job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": "00000000aa",
        "url": "https://a.example/p?token=hush",
        "guild_id": 11,
        "channel_id": 22,
        "user_id": 33,
        "facts": FACTS,
        "claim_number": 1,
        "created_at": 1_800_000_000,  # 2027-01-15T08:00:00Z
    }
    return make_job(**{**values, **fields})


async def fetched(storage: Storage, job: Job, texts: list[str]) -> list[MediaFile]:
    """Files as an attempt leaves them, their names in the opposite order."""
    folder = await storage.attempt_folder(job) / "files"
    files = []
    for number, text in enumerate(texts):
        path = folder / f"{job.id}_{99 - number}.txt"
        path.write_text(text)
        files.append(await storage.inspect(path, folder))
    return files


async def kept_of(storage: Storage) -> list[Stored]:
    return [stored async for stored in storage.kept()]


async def leftovers_of(storage: Storage) -> list[Stored]:
    return [stored async for stored in storage.leftovers()]


def make_old(path: Path, age_s: float = 3600) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


async def test_kept_files_have_their_place_their_names_and_their_order(
    storage: FileStorage,
) -> None:
    job, texts = a_job(), [f"text {n}" for n in range(12)]
    kept = await storage.keep(job, await fetched(storage, job, texts))
    folder = storage.data / "downloads" / "11" / "2027-01-15" / job.id
    assert job.folder == str(folder.relative_to(storage.data))
    names = [f"20270115-080000_My-Title_{job.id}_{n:02}.txt" for n in range(1, 13)]
    assert [file.path for file in kept] == [folder / "content" / name for name in names]
    assert [file.path.read_text() for file in kept] == texts
    assert sorted(os.listdir(folder / "content")) == names
    assert await storage.kept_files(job, names) == kept
    assert await storage.kept_files(job, names[:1]) == kept[:1]
    with pytest.raises(FileNotFoundError):
        await storage.kept_files(job, ["gone.txt"])


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


async def test_large_file_is_read_once_until_it_changes(storage: FileStorage) -> None:
    job, size = a_job(), 8 * 2**20
    text = "words " * (size // 6)
    before = bytes_read()
    [file] = await storage.keep(job, await fetched(storage, job, [text]))
    for _ in range(3):
        assert await storage.kept_files(job, [file.name]) == [file]
    assert size <= bytes_read() - before < 1.2 * size
    status = file.path.stat()
    with file.path.open("r+") as changed:
        changed.write("Words")
    os.utime(file.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    [other] = await storage.kept_files(job, [file.name])
    assert other.size == file.size and other.sha256 != file.sha256


async def test_large_file_in_place_of_another_has_its_own_hash(
    storage: FileStorage, tmp_path: Path
) -> None:
    job, texts = a_job(), ["one " * 2**19, "two " * 2**19]
    one, two = await storage.keep(job, await fetched(storage, job, texts))
    one.path.rename(tmp_path / "one")
    two.path.rename(one.path)
    [found] = await storage.kept_files(job, [one.name])
    assert found.sha256 == two.sha256 != one.sha256


async def test_kept_files_and_their_folders_are_on_the_disk(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, once each has its name, and in this order."""
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append(str(path.relative_to(storage.data)))

    job = a_job()
    files = await fetched(storage, job, ["one", "two"])
    monkeypatch.setattr(os, "fsync", watched)
    kept = await storage.keep(job, files)
    assert not synced
    await storage.sync(job)
    names = [str(file.path.relative_to(storage.data)) for file in kept]
    above = [job.folder, *map(str, Path(job.folder).parents)]
    assert synced[1:] == [*names, f"{job.folder}/content", *above[:-1]]
    assert "metadata.json" in synced[0]


async def test_disk_that_does_not_store_a_file_is_a_failure(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def broken(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path):  # as some file systems say for folders
            raise OSError(errno.EINVAL, "")
        if "/content/" in path and broken_disk:
            raise OSError(errno.EIO, "")
        fsync(descriptor)

    job = a_job()
    files = await fetched(storage, job, ["one"])
    broken_disk = True
    monkeypatch.setattr(os, "fsync", broken)
    await storage.keep(job, files)
    with pytest.raises(OSError) as raised:
        await storage.sync(job)
    assert raised.value.errno == errno.EIO
    broken_disk = False
    assert await storage.keep(job, await fetched(storage, job, ["one"]))
    await storage.sync(job)


async def test_placed_files_have_the_same_names_elsewhere(
    storage: FileStorage, tmp_path: Path
) -> None:
    job = a_job()
    files = await fetched(storage, job, ["one", "two"])
    placed = await storage.place(job, files, tmp_path / "here")
    names = [f"20270115-080000_My-Title_{job.id}_{n:02}.txt" for n in (1, 2)]
    assert [file.path for file in placed] == [tmp_path / "here" / n for n in names]
    assert [file.path.read_text() for file in placed] == ["one", "two"]
    assert [f.sha256 for f in placed] == [f.sha256 for f in files]
    assert not any(file.path.exists() for file in files) and job.folder == ""


async def test_metadata_says_what_is_kept_and_no_secret(storage: FileStorage) -> None:
    job = a_job()
    kept = await storage.keep(job, await fetched(storage, job, ["one", "two"]))
    path = storage.data / job.folder / "metadata.json"
    data = json.loads(path.read_text("utf-8"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert data["source_url"] == "https://a.example/p"
    known = {key: data[key] for key in ("title", "uploader", "date", "text")}
    assert known == {key: FACTS[key] for key in known}
    assert (data["requester"], data["guild"], data["channel"]) == (33, 11, 22)
    assert data["requested_at"] == "2027-01-15T08:00:00+00:00"
    assert data["files"] == [
        {"name": f.name, "sha256": f.sha256, "size": f.size, "mime": "text/plain"}
        for f in kept
    ]
    assert not re.search("hush|never written", path.read_text("utf-8"))


async def test_any_text_can_be_metadata(storage: FileStorage) -> None:
    job = a_job(
        facts={
            "title": "half a pair \ud83d",
            "uploader": "\0\n\u202e",
            "text": "x" * 8000,
        }
    )
    await storage.keep(job, await fetched(storage, job, ["one"]))
    data = json.loads((storage.data / job.folder / "metadata.json").read_text("utf-8"))
    assert data["text"] == "x" * 8000


async def test_keeping_again_after_a_crash_replaces_what_was_there(
    storage: FileStorage,
) -> None:
    job = a_job()
    await storage.keep(job, await fetched(storage, job, ["one", "two", "three"]))
    job.claim_number = 2
    kept = await storage.keep(job, await fetched(storage, job, ["four"]))
    assert os.listdir(kept[0].path.parent) == [kept[0].name]


async def test_files_of_a_job_whose_posts_are_known_are_kept_besides_the_new_ones(
    storage: FileStorage,
) -> None:
    job = a_job()
    first = await storage.keep(job, await fetched(storage, job, ["one", "two"]))
    job.posts = [Post(1, "", {file.name: file.sha256 for file in first})]
    job.sources = [["0001", first[0].sha256], ["0002", first[1].sha256]]
    await storage.keep(job, await fetched(storage, job, ["cut off by a crash"] * 2))
    more = await storage.keep(job, await fetched(storage, job, ["three"]))
    folder = storage.data / job.folder
    kept = sorted((folder / "content").iterdir())
    assert [path.read_text() for path in kept] == ["one", "two", "three"]
    assert [file.path for file in first + more] == kept
    named = json.loads((folder / "metadata.json").read_text())["files"]
    assert [one["sha256"] for one in named] == [file.sha256 for file in first + more]


async def test_what_is_set_apart_is_out_of_reach_for_the_download(
    storage: FileStorage, tmp_path: Path
) -> None:
    job, secret = a_job(), tmp_path / "secret"
    secret.write_text("secret")
    files = await storage.attempt_folder(job) / "files"
    (files / "good.txt").write_text("good")
    (files / "link.txt").symlink_to(secret)
    (files / "folder.txt").mkdir()
    os.mkfifo(files / "pipe.txt")
    names = ["good.txt", "link.txt", "folder.txt", "pipe.txt", "missing.txt", ".."]
    part = await storage.set_apart(job, names)
    assert [path.name for path in part.iterdir()] == ["good.txt"]
    assert part.with_name("home").is_dir()
    (files / "good.txt").write_text("changed")
    assert (await storage.inspect(part / "good.txt", part)).path.read_text() == "good"
    (files / "second.txt").write_text("second")
    assert await storage.set_apart(job, ["second.txt"]) == part
    assert [path.name for path in part.iterdir()] == ["second.txt"]
    await storage.forget_attempt(job)
    assert not await leftovers_of(storage)


async def test_attempt_leaves_the_folder_of_another_alone(storage: FileStorage) -> None:
    old, new = a_job(claim_number=1), a_job(claim_number=2)
    old_folder = await storage.attempt_folder(old)
    assert sorted(os.listdir(old_folder)) == ["files", "home"]
    (old_folder / "files" / "old.txt").write_text("old")
    (await storage.attempt_folder(new) / "files" / "new.txt").write_text("new")
    await storage.forget_attempt(old)
    assert [p.name for p in (storage.data / "temp").rglob("*.txt")] == ["new.txt"]
    assert os.listdir(await storage.attempt_folder(new) / "files") == []
    await storage.forget_attempt(new)
    await storage.forget_attempt(new)
    assert os.listdir(storage.data / "temp") == []


async def test_new_attempt_removes_what_older_ones_left(storage: FileStorage) -> None:
    for number in (1, 2, 10):
        folder = await storage.attempt_folder(a_job(claim_number=number))
        (folder / "files" / "a.txt").write_text("x")
        assert os.listdir(folder.parent) == [str(number)]


async def test_leftovers_are_the_attempts_by_their_job(storage: FileStorage) -> None:
    assert await leftovers_of(storage) == []
    jobs = [a_job(id=f"{number:010x}") for number in (1, 2)]
    for job in jobs:
        folder = await storage.attempt_folder(job)
        (folder / "files" / "a.txt").write_text("x" * 10)
        (folder / "home" / "cookies.txt").write_text("x" * 5)
    (storage.data / "temp" / "stray.txt").write_text("x")
    make_old(storage.data / "temp" / jobs[0].id)
    first, second, stray = await leftovers_of(storage)
    assert [first.job_id, second.job_id] == [job.id for job in jobs]
    assert (stray.job_id, stray.path) == ("stray.txt", storage.data / "temp/stray.txt")
    assert first.size_bytes == 15 and first.path == storage.data / "temp" / jobs[0].id
    assert 3500 < time.time() - first.changed_at < 3700
    assert time.time() - second.changed_at < 60
    assert await storage.attempts_bytes([job.id for job in jobs]) == 30
    assert await storage.attempts_bytes([jobs[0].id, "0000000009"]) == 15
    for stored in (first, stray):
        await storage.remove(stored)
        await storage.remove(stored)  # it may be gone by then
    assert [stored.job_id for stored in await leftovers_of(storage)] == [jobs[1].id]


async def test_attempts_are_removed_up_to_a_claim_number(storage: FileStorage) -> None:
    job = a_job(claim_number=2)
    folder = (await storage.attempt_folder(job)).parent
    for name in ("1", "3", "10", "notes"):
        (folder / name / "files").mkdir(parents=True)
    (stored,) = await leftovers_of(storage)
    await storage.remove(stored, before=3)
    assert sorted(os.listdir(folder)) == ["10", "notes"]
    await storage.remove(stored)
    assert not folder.exists()


async def test_what_a_link_leads_to_is_never_removed_or_counted(
    storage: FileStorage, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    (outside / "1" / "precious.txt").write_text("x" * 1000)
    temp, downloads = storage.data / "temp", storage.data / "downloads"
    (temp / "0000000001").symlink_to(outside)
    (downloads / "1" / "2027-01-15").mkdir(parents=True)
    (downloads / "1" / "2027-01-15" / "0000000002").symlink_to(outside)
    (downloads / "2").symlink_to(outside)
    assert await kept_of(storage) == []
    assert await storage.attempts_bytes(["0000000001"]) == 0
    for before in (9, None):
        for stored in await leftovers_of(storage):
            await storage.remove(stored, before)
    assert await leftovers_of(storage) == []
    assert (outside / "1" / "precious.txt").exists()


async def test_kept_folders_come_guild_by_guild_and_day_by_day(
    storage: FileStorage,
) -> None:
    assert await kept_of(storage) == []
    day_s = 86400
    for guild_id, number, created_at in ((11, 1, 0), (11, 2, day_s), (5, 3, 0)):
        job = a_job(
            id=f"{number:010x}", guild_id=guild_id, created_at=1.8e9 + created_at
        )
        await storage.keep(job, await fetched(storage, job, ["words"]))
    await storage.note(11, ".stats", {"kept_jobs": 2})
    kept = await kept_of(storage)
    assert [(one.guild_id, int(one.job_id)) for one in kept] == [
        (11, 1),
        (11, 2),
        (5, 3),
    ]
    assert all(one.path.name == one.job_id and one.size_bytes > 5 for one in kept)
    await storage.remove(kept[0])
    assert [int(one.job_id) for one in await kept_of(storage)] == [2, 3]
    day = kept[0].path.parent
    assert day.is_dir(), "a job may need it in a moment"
    make_old(day)
    await kept_of(storage)
    assert not day.exists() and kept[1].path.is_dir()
    note = storage.data / "downloads" / "11" / ".stats"
    assert json.loads(note.read_text()) == {"kept_jobs": 2}


def names_of(files: list[MediaFile]) -> list[int]:
    """How many names the contents of files have."""
    return [file.path.stat().st_nlink for file in files]


async def test_same_content_is_stored_once_and_stays_as_long_as_a_job_has_it(
    storage: FileStorage,
) -> None:
    jobs = [a_job(id=f"{n:010x}", guild_id=n) for n in range(3)]
    texts = [["same", "mine"], ["same"], ["same", "same"]]
    kept = [
        await storage.keep(job, await fetched(storage, job, text))
        for job, text in zip(jobs, texts, strict=True)
    ]
    assert [names_of(files) for files in kept] == [[4, 1], [4], [4, 4]]
    about = sum(s.stat().st_size for s in storage.data.rglob("metadata.json"))
    assert sum(s.size_bytes for s in await kept_of(storage)) == about + 4 + 4
    await storage.forget(jobs[0])
    assert [names_of(files) for files in kept[1:]] == [[3], [3, 3]]
    await storage.keep(jobs[0], await fetched(storage, jobs[0], ["same"]))
    for stored in await kept_of(storage):
        await storage.remove(stored)
    contents = storage.data / "downloads" / ".contents"
    assert list(contents.iterdir()) == []
    # What was removed while nobody knew of it.
    await storage.keep(jobs[0], await fetched(storage, jobs[0], ["same"]))
    remove_tree(storage.data / jobs[0].folder)
    assert await kept_of(storage) == [] and list(contents.iterdir()) == []


async def test_to_keep_what_many_have_takes_no_longer(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = Counter[int]()
    resolve = Path.resolve

    def counted(path: Path, strict: bool = False) -> Path:
        looked_at[number] += 1
        return resolve(path, strict)

    monkeypatch.setattr(Path, "resolve", counted)
    for number in range(20):
        job = a_job(id=f"{number:010x}")
        [kept] = await storage.keep(job, await fetched(storage, job, ["same"]))
        assert names_of([kept]) == [number + 1]
    assert looked_at[19] == looked_at[1] < 10


async def test_content_that_was_changed_behind_our_back_is_not_shared(
    storage: FileStorage,
) -> None:
    first, second = (a_job(id=f"{n:010x}") for n in range(2))
    [old] = await storage.keep(first, await fetched(storage, first, ["same"]))
    old.path.write_text("else")
    [new] = await storage.keep(second, await fetched(storage, second, ["same"]))
    assert new.path.read_text() == "same" and old.path.read_text() == "else"


async def test_without_hard_links_everything_is_stored_as_it_comes(
    storage: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: Any, **__: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_link)
    for number in range(2):
        job = a_job(id=f"{number:010x}")
        kept = await storage.keep(job, await fetched(storage, job, ["same"]))
        assert [file.path.read_text() for file in kept] == ["same"]


async def test_same_content_that_is_kept_at_once_is_stored_once(
    storage: FileStorage,
) -> None:
    jobs = [a_job(id=f"{n:010x}") for n in range(8)]
    files = [await fetched(storage, job, ["same"]) for job in jobs]
    kept = await asyncio.gather(*map(storage.keep, jobs, files))
    assert [names_of(files) for files in kept] == [[8]] * 8


@pytest.mark.parametrize("wrong", ["", "gone", "changed", "outside", "no metadata"])
async def test_copies_of_kept_files_are_whole_or_there_are_none(
    storage: FileStorage, wrong: str, tmp_path: Path
) -> None:
    job, again = a_job(), a_job(id="00000000bb")
    kept = await storage.keep(job, await fetched(storage, job, ["one", "two"]))
    folder = await storage.attempt_folder(again) / "files"
    about = storage.data / job.folder / "metadata.json"
    if wrong == "gone":
        kept[1].path.unlink()
    elif wrong == "changed":
        kept[1].path.write_text("els")
    elif wrong == "outside":
        about.write_text(about.read_text().replace(kept[1].name, "../../x"))
        shutil.copy(kept[1].path, about.parent.parent / "x")
        (folder.parent.parent / "x").write_text("of somebody else")
    elif wrong:
        about.unlink()
    if wrong:
        with pytest.raises(OSError):
            await storage.copy_kept(job, folder)
        assert os.listdir(folder) == []
        others = [path.read_text() for path in folder.parent.parent.glob("x")]
        assert others == ["of somebody else"] * (wrong == "outside")
        return
    copies = await storage.copy_kept(job, folder)
    assert [path.read_text() for path in copies] == ["one", "two"]
    assert names_of(kept) == [1, 1]  # whatever becomes of the copies


async def test_note_is_replaced_whole(storage: FileStorage) -> None:
    for number in (1, 2):
        await storage.note(7, ".stats", {"kept_jobs": number})
    folder = storage.data / "downloads" / "7"
    assert os.listdir(folder) == [".stats"]
    assert json.loads((folder / ".stats").read_text()) == {"kept_jobs": 2}


async def test_each_platform_has_a_cache_of_its_own(storage: FileStorage) -> None:
    for platform, name in (("tube", "tube"), ("", "other"), ("tube", "tube")):
        folder = await storage.cache_folder(platform)
        assert folder == storage.data / "cache" / name and folder.is_dir()


async def test_file_is_inspected_away_from_the_loop(
    storage: FileStorage, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("words")
    file = await storage.inspect(tmp_path / "a.txt", tmp_path)
    assert (file.size, file.mime, file.name) == (5, "text/plain", "a.txt")
    with pytest.raises(JobFailed):
        await storage.inspect(tmp_path / "a.txt", tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        await storage.inspect(tmp_path / "gone.txt", tmp_path)
