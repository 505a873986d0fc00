"""Only the sound of what was downloaded, for those who ask for it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import media
import pytest
from bossbot_plugins import _bench
from bossbot_plugins import sound_only as plugin
from conftest import make_job
from media import facts

from bossbot import App, Cause, JobFailed, MediaFile, Probe, Status

pytest_plugins = ("processor_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")
PROCESSORS = ("sound_only",)
AUDIO = {"quality": "audio"}


Process = Callable[..., Any]


@pytest.fixture
def process(app: App, processed: Callable[..., Any]) -> Process:
    """Lets the plugin work on copies of these files; keywords are fields of the job."""

    async def process(*made: Path, **fields: Any) -> list[MediaFile]:
        job = make_job(claim_number=1, **{"options": AUDIO, **fields})
        folder = await app.storage.attempt_folder(job) / "files"
        paths = []
        for number, one in enumerate(made):
            cover = one.suffixes[:-1] == [".cover"]
            name = f"{number + 1}.cover" if cover else f"{number}"
            path = folder / f"{name}{one.suffix}"
            path.write_bytes(one.read_bytes())
            paths.append(path)
        return await processed(job, folder, paths)

    return process


KINDS = {
    "a.mp4": ([], "m4a", "aac"),
    "b.webm": (["-c:v", "libvpx", "-c:a", "libopus"], "ogg", "opus"),
    "c.ts": (["-c", "copy"], "m4a", "aac"),
    "d.webm": (["-vn", "-c:a", "libopus"], "ogg", "opus"),
    "e.mka": (["-vn", "-c:a", "ac3"], "m4a", "aac"),  # which plays
}


async def test_sound_of_a_video_is_taken_out_as_it_is(
    process: Process, shelf: Path
) -> None:
    outputs = {name: how for name, (how, *_) in KINDS.items()}
    made = media.made_of(["-i", str(media.video(shelf))], shelf, outputs)
    files = await process(*made)
    for file, (name, (_, ending, codec)) in zip(files, KINDS.items(), strict=True):
        assert file.mime.startswith("audio/"), name
        assert file.path.suffix == f".{ending}", name
        assert facts(file.path).codecs == {"audio": [codec]}, name


async def test_pictures_go_and_sound_and_subtitles_stay(
    process: Process, shelf: Path, tmp_path: Path
) -> None:
    words = tmp_path / "a.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    sound, silent = media.audio(shelf), media.video(shelf, sound=False)
    files = await process(media.image(shelf), sound, silent, words)
    assert [file.path.suffix for file in files] == [".mp3", ".srt"]
    assert files[0].path.read_bytes() == sound.read_bytes()


SOUNDS = {
    "mp3": ["-c:a", "libmp3lame"],
    "m4a": ["-c:a", "aac"],
    "ogg": ["-c:a", "libopus"],
    "flac": ["-c:a", "flac"],
}
TOLD = {
    "title": 'A "song": 50% -i off; $HOME \0 https://a.example/x [v] \n=ä',
    "uploader": "-y 'Åsa'",
    "date": "2024-05-06T07:08:09",
}


@pytest.mark.parametrize("kind", SOUNDS)
async def test_sound_gets_cover_and_tags_and_stays_as_it_was(
    process: Process, shelf: Path, kind: str
) -> None:
    tone = ["-i", str(media.audio(shelf, kind="m4a"))]
    outputs = {f"tone.{kind}": how for kind, how in SOUNDS.items()}
    media.made_of(tone, shelf, outputs)
    made = shelf / f"tone.{kind}"
    cover = shelf / "0.cover.webp"
    cover.write_bytes(media.image(shelf, kind="webp").read_bytes())
    [file] = await process(cover, made, facts=TOLD)
    assert file.path.suffix == f".{kind}"
    found = facts(file.path)
    title = found.tags["title"]
    assert title.startswith('A "song": 50% -i off; $HOME') and title.endswith("=ä")
    assert found.tags["artist"] == "-y 'Åsa'"
    assert len(found.codecs["video"]) == 1
    assert samples(file.path) == samples(made)
    # What it has by now, it keeps.
    [again] = await process(cover, file.path, facts={"title": "another"})
    assert again.sha256 == file.sha256


def samples(path: Path) -> bytes:
    with media.opened(path) as file:
        return b"".join(bytes(p) for f in file.decode(audio=0) for p in f.planes)


async def test_cover_that_is_none_is_left_out(process: Process, shelf: Path) -> None:
    cover = shelf / "0.cover.png"
    cover.write_bytes(media.image(shelf, kind="png").read_bytes()[:60])
    tone = media.audio(shelf)
    [file] = await process(cover, tone, facts={"title": "a"})
    found = facts(file.path)
    assert found.tags["title"] == "a" and found.codecs == {"audio": ["mp3"]}


async def test_several_sounds_are_an_album(process: Process, shelf: Path) -> None:
    tones = [media.audio(shelf), media.audio(shelf, 2)]
    told = {"title": "The list", "uploader": "Alice", "items": 2}
    for file in await process(*tones, facts=told):
        tags = facts(file.path).tags
        assert (tags["album"], tags["artist"]) == ("The list", "Alice")
        assert "title" not in tags


async def test_without_ffmpeg_sound_stays_as_it_is(
    process: Process, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bench, "find_programs", dict)
    tone = media.audio(shelf)
    [file] = await process(tone, facts={"title": "a"})
    assert file.path.read_bytes() == tone.read_bytes()
    with pytest.raises(JobFailed, match="needs ffmpeg, which is missing here"):
        await process(media.video(shelf))


@pytest.mark.parametrize("options", [{}, {"quality": "720"}, {"spoiler": True}])
async def test_nothing_changes_unless_it_was_asked_for(
    process: Process, shelf: Path, options: dict[str, Any]
) -> None:
    made = [media.image(shelf), media.video(shelf)]
    files = await process(*made, options=options)
    assert [f.path.read_bytes() for f in files] == [m.read_bytes() for m in made]


async def test_post_without_sound_fails_and_says_so(
    process: Process, shelf: Path
) -> None:
    with pytest.raises(JobFailed, match="no sound in that") as caught:
        await process(media.image(shelf), media.video(shelf, sound=False))
    assert caught.value.cause is Cause.NO_MEDIA


async def test_part_without_sound_is_empty_while_more_comes(
    process: Process, shelf: Path
) -> None:
    assert await process(media.image(shelf), status=Status.DOWNLOADING) == []


async def test_post_of_words_alone_stays(process: Process) -> None:
    assert await process() == []


@pytest.mark.parametrize(
    ("count", "facts", "name"),
    [(1, {}, "title"), (2, {}, "album"), (1, {"items": 3}, "album")],
)
async def test_title_of_a_post_is_that_of_its_only_sound(
    count: int, facts: dict[str, Any], name: str
) -> None:
    job = make_job(facts={"title": "t", **facts})
    assert plugin.tags_of(job, count) == {name: "t"}


async def test_sound_that_plays_stays_where_no_tags_can_be_written(
    shelf: Path, tmp_path: Path
) -> None:
    async def probe(file: MediaFile) -> Probe:
        return Probe("mp3", audio="mp3")

    async def ffmpeg(*words: Any, **how: Any) -> None:
        raise JobFailed(Cause.INTERNAL, "no")

    bench: Any = SimpleNamespace(probe=probe, ffmpeg=ffmpeg, path=tmp_path.joinpath)
    sound = MediaFile(media.audio(shelf, kind="mp3"), 9, "", "audio/mpeg")
    assert await plugin.sound_of(sound, bench, {"title": "t"}, None) is sound
    video = dataclasses.replace(sound, mime="video/mp4")
    with pytest.raises(JobFailed):
        await plugin.sound_of(video, bench, {"title": "t"}, None)
