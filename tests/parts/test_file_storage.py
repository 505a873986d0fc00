"""Storage: names, what may be posted, the folders, a guild's settings."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import media
import pytest
from bossbot_plugins.file_storage import FileStorage, inspect_file, safe_name, suffix_of
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize, Field, TypeAdapter

from bossbot import (
    Cause,
    Job,
    JobFailed,
    MediaFile,
    PluginConfig,
    Refused,
    StartError,
    escape,
    format_size,
    format_time,
    one_line,
    prepare_data,
    public_url,
    write_atomically,
)

# Text as sites have it: everything, and often what could do harm.
NASTY = st.sampled_from(
    [
        "@everyone",
        "<@123>",
        "<@&1>",
        "[a](https://evil)",
        "discord.gg/x",
        "http://x",
        "||",
        "../",
        "/",
        "\\",
        "`",
        "```",
        "**",
        "__",
        "~~",
        ">",
        "#",
        "CON",
        ".",
        "é",
        "漢字",
        "😀",
        "\u202e",
        "\u200b",
        "\x1b[31m",
        "�",
    ]
) | st.sampled_from("\n\r\t\0\x0b\x85\u2028")
TEXT = st.one_of(
    st.text(st.characters(), max_size=300),
    st.lists(NASTY | st.text(max_size=9)).map("".join),
)
EXAMPLES = settings(max_examples=300, deadline=None)


# Text from outside


@EXAMPLES
@given(TEXT, st.integers(1, 80))
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


@EXAMPLES
@given(TEXT)
def test_one_line_has_nothing_that_moves_the_cursor(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() or " " in line
    assert len(line.splitlines()) <= 1
    assert not re.search(
        "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", line
    )
    assert one_line(line) == line
    line.encode()  # no half of a pair is left


@EXAMPLES
@given(TEXT, st.integers(1, 300))
def test_escaped_text_has_no_live_markup_and_a_limit(text: str, limit: int) -> None:
    escaped = escape(text, limit)
    assert len(escaped.splitlines()) <= 1
    assert len(escaped) <= 2 * limit
    assert "://" not in escaped
    alive = re.sub(r"\\.", "", escaped)
    assert not re.search(r"[\\*_~`|>\[\]()#<@]", alive)
    escaped.encode()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain words, 5 of them.", "plain words, 5 of them."),
        ("@everyone", "\\@everyone"),
        ("<@!5>", "\\<\\@!5\\>"),
        ("[x](https://evil)", "\\[x\\]\\(https:\\/\\/evil\\)"),
        ("DISCORD.GG/abc", "DISCORD\\.GG/abc"),
        ("a\nb\x1b[31mc", "a bc"),
        ("\u202eevil\u200b", "evil"),
        ("x" * 500, "x" * 199 + "…"),
        ("C:\\*", "C:\\\\\\*"),
    ],
)
def test_escape_of_a_text(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@EXAMPLES
@given(st.integers(0, 2**50))
def test_shown_size_is_near_the_size_and_a_setting_could_hold_it(size: int) -> None:
    shown = format_size(size)
    assert re.fullmatch(r"\d+(\.\d)? ([KMGTP]i)?B", shown)
    read = TypeAdapter(ByteSize).validate_python(shown)
    assert abs(read - size) <= size * 0.05


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (500, "500 B"),
        (1536, "1.5 KiB"),
        (20 * 2**20, "20 MiB"),
        (2**30, "1 GiB"),
        (512.7, "512 B"),
    ],
)
def test_size_is_shown_in_the_units_of_the_settings(size: float, shown: str) -> None:
    assert format_size(size) == shown


@EXAMPLES
@given(st.floats(-10, 10**7))
def test_shown_time_adds_up(seconds: float) -> None:
    shown = format_time(seconds)
    units = {"s": 1, "min": 60, "h": 3600}
    words = shown.split()
    total = sum(
        float(n) * units[u] for n, u in zip(words[::2], words[1::2], strict=True)
    )
    slack = 60 if "h" in words else 1
    assert abs(total - max(seconds, 0)) <= slack


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0 s"),
        (0.84, "0.8 s"),
        (8.2, "8 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3840, "1 h 4 min"),
    ],
)
def test_time_is_shown_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert format_time(seconds) == shown


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
def test_what_is_no_media_is_refused_whatever_its_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(JobFailed) as caught:
        inspect_file(path, tmp_path)
    assert caught.value.cause is Cause.NO_MEDIA


def test_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("words")
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real.txt")
    with pytest.raises(JobFailed):
        inspect_file(link, tmp_path)


def test_file_outside_of_the_jobs_folder_is_refused(tmp_path: Path) -> None:
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
            inspect_file(path, folder)


def test_pipe_or_folder_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("pipe.mp4", "folder.mp4"):
        with pytest.raises(JobFailed):
            inspect_file(tmp_path / name, tmp_path)


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
def test_real_media_is_recognised_whatever_its_name(
    tmp_path: Path, media_folder: Path, kind: str, mime: str
) -> None:
    if kind in ("mp3", "m4a"):
        made = media.audio(media_folder, kind=kind)
    elif kind in ("mp4", "webm"):
        made = media.video(media_folder, kind=kind)
    else:
        made = media.image(media_folder, kind=kind)
    content = made.read_bytes()
    file = inspect_file(made, media_folder)
    assert file.mime in (mime, mime.replace("/mp4", "/m4a"), "audio/x-m4a")
    assert file == MediaFile(
        made, len(content), hashlib.sha256(content).hexdigest(), file.mime
    )
    assert suffix_of(file) == kind
    for name in ("photo.exe", "noname", "page.html", "a.jpg png"):
        shutil.copy(made, tmp_path / name)
        assert suffix_of(inspect_file(tmp_path / name, tmp_path)) == kind


def test_gif_is_no_transport_stream(tmp_path: Path, media_folder: Path) -> None:
    content = bytearray(media.image(media_folder, kind="gif").read_bytes())
    content[188:189] = b"G"
    path = tmp_path / "a.gif"
    path.write_bytes(content)
    assert suffix_of(inspect_file(path, tmp_path)) == "gif"


def test_transport_stream_and_text_are_media_too(tmp_path: Path) -> None:
    stream, words, subtitles = (tmp_path / n for n in ("a.bin", "b.TXT", "c.srt"))
    stream.write_bytes((b"G" + bytes(187)) * 50)
    words.write_text("Grüße, 漢字\n" * 2000)
    subtitles.write_text("1\n00:00:01,000 --> 00:00:02,000\n<i>Hi</i>\n")
    files = [inspect_file(path, tmp_path) for path in (stream, words, subtitles)]
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
    try:
        ending = suffix_of(inspect_file(path, folder))
    except JobFailed:
        return
    assert re.fullmatch(r"[a-z0-9]{2,5}", ending)
    assert ending not in ("exe", "html", "svg", "url", "desktop", "webloc", "m3u8")


# Files that are written


def test_file_is_replaced_whole_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    write_atomically(path, b"one")
    path.chmod(0o644)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["state.json"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    code = (
        "import resource, sys, bossbot; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "bossbot.write_atomically(Path(sys.argv[1]), bytes(100_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["state.json"]


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    prepare_data(tmp_path / "data")
    storage = FileStorage(tmp_path / "data")
    return storage


def a_job(**fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": "00000000aa",
        "url": "https://a.example/p?token=hush",
        "platform": "",
        "engine": "e",
        "guild_id": 11,
        "channel_id": 22,
        "user_id": 33,
        "request_key": "k",
        "title": "My / Title!",
        "fence": 1,
        "created_at": 1_800_000_000,  # 2027-01-15T08:00:00Z
    }
    return Job(**{**values, **fields})


def fetched(storage: FileStorage, job: Job, texts: list[str]) -> list[MediaFile]:
    """Files as an attempt leaves them, their names in the opposite order."""
    folder = storage.attempt_folder(job) / "files"
    files = []
    for number, text in enumerate(texts):
        path = folder / f"{job.id}_{99 - number}.txt"
        path.write_text(text)
        files.append(inspect_file(path, folder))
    return files


FACTS = {
    "title": "My / Title!",
    "uploader": "ada",
    "date": "2026-01-02",
    "text": "Grüße \U0001f600",
    "items": 12,
    "cookies": "never written",
}


def test_kept_files_have_their_place_their_names_and_their_order(
    storage: FileStorage,
) -> None:
    job, texts = a_job(), [f"text {n}" for n in range(12)]
    kept = storage.keep(job, fetched(storage, job, texts), FACTS)
    folder = storage.data / "downloads" / "11" / "2027-01-15" / job.id
    assert job.folder == str(folder.relative_to(storage.data))
    names = [f"20270115-080000_My-Title_{job.id}_{n:02}.txt" for n in range(1, 13)]
    assert [file.path for file in kept] == [folder / "content" / name for name in names]
    assert [file.path.read_text() for file in kept] == texts
    assert sorted(os.listdir(folder / "content")) == names
    assert storage.kept_files(job, names) == kept
    with pytest.raises(FileNotFoundError):
        storage.kept_files(job, ["gone.txt"])


def test_metadata_says_what_is_kept_and_no_secret(storage: FileStorage) -> None:
    job = a_job()
    kept = storage.keep(job, fetched(storage, job, ["one", "two"]), FACTS)
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


def test_any_text_can_be_metadata(storage: FileStorage) -> None:
    job = a_job(title="\ud83d")
    facts = {
        "title": "half a pair \ud83d",
        "uploader": "\0\n\u202e",
        "text": "x" * 8000,
    }
    storage.keep(job, fetched(storage, job, ["one"]), facts)
    data = json.loads((storage.data / job.folder / "metadata.json").read_text("utf-8"))
    assert data["text"] == "x" * 8000


def test_keeping_again_after_a_crash_replaces_what_was_there(
    storage: FileStorage,
) -> None:
    job = a_job()
    storage.keep(job, fetched(storage, job, ["one", "two", "three"]), FACTS)
    job.claim_number = 2
    kept = storage.keep(job, fetched(storage, job, ["four"]), FACTS)
    assert os.listdir(kept[0].path.parent) == [kept[0].name]


def test_known_platforms_link_keeps_what_names_the_post() -> None:
    assert public_url(a_job(platform="tube")) == "https://a.example/p?token=hush"
    assert public_url(a_job()) == "https://a.example/p"


def test_attempt_leaves_the_folder_of_another_alone(storage: FileStorage) -> None:
    old, new = a_job(claim_number=1), a_job(fence=2)
    (storage.attempt_folder(old) / "files" / "old.txt").write_text("old")
    (storage.attempt_folder(new) / "files" / "new.txt").write_text("new")
    storage.forget_attempt(old)
    assert [p.name for p in (storage.data / "temp").rglob("*.txt")] == ["new.txt"]
    assert os.listdir(storage.attempt_folder(new) / "files") == []
    storage.forget_attempt(new)
    assert os.listdir(storage.data / "temp") == []


def test_data_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StartError) as caught:
        prepare_data(tmp_path / "data")
    assert str(tmp_path / "data") in str(caught.value)
    assert "data_dir" in str(caught.value)


# A guild's settings


class Model(PluginConfig):
    colour: str = "red"
    size: int = Field(5, ge=1)
    names: tuple[str, ...] = ()
    note: str | None = None


def test_guild_settings_are_the_defaults_until_set(storage: FileStorage) -> None:
    assert storage.guild_settings(1, "shop", Model) == Model()
    assert storage.set_guild_setting(1, "shop", Model, "size", 7) == Model(size=7)
    storage.set_guild_setting(1, "shop", Model, "names", ["Ünï", 'quo"te'])
    storage.set_guild_setting(1, "other", Model, "colour", "blue")
    assert storage.guild_settings(1, "shop", Model) == Model(
        size=7, names=("Ünï", 'quo"te')
    )
    assert storage.guild_settings(1, "other", Model) == Model(colour="blue")
    assert storage.guild_settings(2, "shop", Model) == Model()
    path = storage.data / "guilds" / "1.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "[shop]\nsize = 7" in path.read_text("utf-8")


def test_guild_setting_may_be_unset(storage: FileStorage) -> None:
    storage.set_guild_setting(1, "shop", Model, "note", "x")
    assert storage.set_guild_setting(1, "shop", Model, "note", None) == Model()
    assert storage.guild_settings(1, "shop", Model) == Model()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("size", 0, "greater than or equal to 1"),
        ("size", "many", "size"),
        ("colours", "blue", "did you mean colour?"),
    ],
)
def test_wrong_guild_setting_is_refused_and_nothing_changes(
    storage: FileStorage, key: str, value: Any, words: str
) -> None:
    storage.set_guild_setting(1, "shop", Model, "size", 7)
    with pytest.raises(Refused, match=re.escape(words)):
        storage.set_guild_setting(1, "shop", Model, key, value)
    assert storage.guild_settings(1, "shop", Model) == Model(size=7)


@pytest.mark.parametrize("content", ["[shop", "shop = 5", "[shop]\nsize = 0", "\x00"])
def test_broken_guild_file_counts_as_none_and_is_not_overwritten(
    storage: FileStorage, logged: list[str], content: str
) -> None:
    path = storage.data / "guilds" / "1.toml"
    path.write_text(content)
    assert storage.guild_settings(1, "shop", Model) == Model()
    assert logged and "1" in logged[0]
    with pytest.raises(Refused) as caught:
        storage.set_guild_setting(1, "shop", Model, "colour", "blue")
    assert str(storage.data) not in str(caught.value)
    assert path.read_text() == content
