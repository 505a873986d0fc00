"""A checkout in a folder of any name, and output that nobody reads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import media
import pytest
from conftest import CORE, SUPPORT_PLUGINS, Home, copy_bot
from sites import Sites
from sites_canned.reddit import Reddit

NAMES = [
    "$HOME",
    "${HOME}",
    "{x}",
    "{time}",
    "a {0} b",
    "%d %(id)s",
    "~",
    "a'b\"c",
    "#1 ü",
]
# The answers are over 64 KiB, which a pipe holds.
LONG = [f"https://toy.example/{number:0300}" for number in range(200)]


@pytest.fixture
def sites() -> Iterator[Sites]:
    with Sites() as sites:
        yield sites


def bot_in(folder: Path) -> Home:
    copy_bot(folder, *CORE, "config.toml", "plugins")
    return Home(folder)


def test_downloads_with_the_real_engines_go_where_the_folder_is(
    sites: Sites, media_folder: Path, tmp_path: Path
) -> None:
    bot = bot_in(tmp_path.joinpath(*NAMES))
    photo, video = media.image(media_folder), media.video(media_folder)
    parts = (
        media.video(media_folder, sound=False),
        media.video(media_folder, picture=False),
    )
    playlist = media.hls(media_folder)
    for path in playlist.parent.iterdir():
        sites.serve(f"https://files.example/{path.name}", path)
    links = [
        sites.serve("https://files.example/a.jpg", photo),  # gallery-dl
        sites.serve(
            "https://files.example/b", video, headers={"Content-Type": "video/mp4"}
        ),
        "https://files.example/list.m3u8",  # with ffmpeg, by yt-dlp
        Reddit(sites).video("aa6", *parts),  # by yt-dlp inside gallery-dl
    ]
    cookies = bot.path / "cookies.txt"
    row = ".reddit.com\tTRUE\t/\tTRUE\t0\treddit_session\tabcdef"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{row}\n")
    cookies.chmod(0o600)
    environment = {
        **sites.environment,
        "BOSS_BOT_PLUGINS__CHILD_RUNNER__ALLOW_PRIVATE_ADDRESSES": "true",
        "BOSS_BOT_PLUGINS__REDDIT__COOKIES_FILE": str(cookies),
    }
    to = Path("a rather long folder name", "x" * 80)
    done = bot.run("get", *links, "--to", to, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    paths = [Path(line.rpartition(" (")[0]) for line in done.stdout.splitlines()]
    assert {*paths} == {bot.path / to / name for name in os.listdir(bot.path / to)}
    assert sorted(path.suffix for path in paths) == [".jpg", *[".mp4"] * 3]
    assert {photo.read_bytes(), video.read_bytes()} < {p.read_bytes() for p in paths}
    assert "\x1b" not in done.stdout
    assert {"abcdef"} <= {r.cookies.get("reddit_session") for r in sites.requests}
    assert list((bot.data / "logs").glob("boss-bot_2*.log"))
    # Nothing beside it, and nothing left of the attempts.
    for depth, name in enumerate(NAMES):
        beside = tmp_path.joinpath(*NAMES[:depth]).iterdir()
        assert [path.name for path in beside if path.is_dir()] == [name]
    assert not any((bot.data / "temp").iterdir())
    assert not [path for path in bot.data.rglob("*") if path.stat().st_mode & 0o077]
    assert sorted(p.name for p in bot.data.iterdir() if p.name[0] != ".") == sorted(
        ["cache", "downloads", "guilds", "logs", "temp"]
    )


@pytest.fixture
def toy_home(bare_home: Home) -> Home:
    bare_home.add_plugin(SUPPORT_PLUGINS / "toy.py")
    return bare_home


def test_output_that_nobody_reads_is_no_traceback(toy_home: Home) -> None:
    command = [*toy_home.command("which", "-")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=toy_home.environment(),
        text=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdout.close()  # as `| head -1` does, when it has its line
        process.stdin.write("\n".join(LONG))
        process.stdin.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""


@pytest.mark.parametrize("closed", [">&-", "2>&- <&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_traceback(toy_home: Home, closed: str) -> None:
    script = toy_home.path / "bossbot.py"
    line = f'"{sys.executable}" "{script}" which https://toy.example/1'
    done = subprocess.run(
        ["sh", "-c", f"{line} {closed}"],
        env={**toy_home.environment(), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert ("toy" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
