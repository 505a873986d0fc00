"""The command line, run as a user runs it."""

import ast
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import engine_urls
import pytest
import warm_python
from conftest import ROOT, Home
from sites import Sites

import bossbot

TOKEN = "MTAwMDAwMDAw.GsEcRe.very-secret-token"
PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def toy_home(bare_home: Home) -> Home:
    """With an engine that needs no network."""
    bare_home.add_plugin(PLUGINS / "toy.py")
    return bare_home


@pytest.fixture
def sites() -> Iterator[Sites]:
    with Sites() as running:
        yield running


# get; with the real engines: test_odd_folder.py


def test_get_opens_no_private_address(
    bare_home: Home, sites: Sites, tmp_path: Path
) -> None:
    bare_home.add_plugin(PLUGINS / "opens.py")
    url = sites.serve("/photo.jpg", b"a photo")
    done = bare_home.run("get", url, "--to", tmp_path / "to")
    assert done.returncode == 1 and "private address" in done.stderr
    assert sites.requests == [] and list((tmp_path / "to").iterdir()) == []


def test_get_saves_where_the_user_is_and_says_what_failed(
    toy_home: Home, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = toy_home.run(
        *("get", "https://a.toy.example/1", "https://a.toy.example/gone", "nonsense"),
        "https://elsewhere.example/x",
        cwd=here,
    )
    assert done.returncode == 1
    names = sorted(path.name for path in here.iterdir())
    assert len(names) == 2 and all("_A-toy-1_" in name for name in names)
    assert [name[-6:] for name in names] == ["01.txt", "02.txt"]
    gone, elsewhere, nonsense = sorted(done.stderr.splitlines())
    assert gone.startswith("https://a.toy.example/gone") and "(404)" in gone
    assert "has been deleted or never existed" in gone
    assert nonsense.startswith("nonsense Invalid URL: ")
    assert "Not supported: I cannot download from elsewhere.example." in elsewhere


def test_get_names_what_is_over_the_limit_and_how_the_rest_fits(
    toy_home: Home, tmp_path: Path
) -> None:
    toy_home.add_plugin(PLUGINS / "smaller.py")
    done = toy_home.run(
        *("get", "https://a.toy.example/1", "--limit", "1KiB", "--to", tmp_path / "to")
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "to").iterdir()
    assert path.read_text() == "1" * 10
    assert "too large" in done.stdout and "4.9 KiB" in done.stdout
    assert "_01.txt (10 B, 1080p to 720p)\n" in done.stdout


def test_get_fails_when_nothing_is_within_the_limit(
    toy_home: Home, tmp_path: Path
) -> None:
    done = toy_home.run(
        *("get", "https://a.toy.example/1", "--limit", "5B", "--to", tmp_path / "to")
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "file 2 of 2 is 4.9 KiB" in done.stderr and "--limit is 5 B" in done.stderr
    assert list((tmp_path / "to").iterdir()) == []


def test_get_says_which_option_is_wrong(toy_home: Home, tmp_path: Path) -> None:
    link, file = "https://a.toy.example/1", tmp_path / "file"
    file.write_text("")
    done = toy_home.run("get", link, "--limit", "banana")
    assert (
        done.returncode == 2 and "--limit: 'banana' is not a size; write" in done.stderr
    )
    for folder in (file, Path("/proc")):  # where nobody can write
        done = toy_home.run("get", link, "--to", folder)
        assert done.returncode == 1 and f"--to {folder}: " in done.stderr
        assert "Choose another folder." in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_get_leaves_no_process_and_no_file(
    toy_home: Home, tmp_path: Path, name: str
) -> None:
    note = toy_home.data / "cache" / "other" / "pid"
    command = toy_home.command(
        *("get", "https://a.toy.example/hang", "--to", tmp_path / "to")
    )
    with (tmp_path / "stderr").open("wb") as stderr:
        process = warm_python.start(
            command[1:], toy_home.environment(), tmp_path, stderr=stderr
        )
    end_s = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < end_s:
        time.sleep(0.02)
    process.send_signal(signal.Signals[name])
    assert process.wait(60) == 130
    assert "Traceback" not in (tmp_path / "stderr").read_text()
    child = Path(f"/proc/{note.read_text()}/stat")
    while child.exists() and " Z " not in child.read_text():
        assert time.monotonic() < end_s
        time.sleep(0.02)
    assert not list((toy_home.data / "temp").iterdir())
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("ignored", ["HUP", "INT"])  # by nohup; by a shell's "&"
def test_get_goes_on_ignoring_what_it_was_told_to_ignore_and_no_more(
    toy_home: Home, tmp_path: Path, ignored: str
) -> None:
    note = toy_home.data / "cache" / "other" / "pid"
    command = toy_home.command("get", "https://a.toy.example/hang", "--to", tmp_path)
    with subprocess.Popen(
        ["/bin/sh", "-c", f'trap "" {ignored}; exec "$@"', "sh", *command],
        env=toy_home.environment(),
    ) as process:
        end_s = time.monotonic() + 60
        while not (note.exists() and note.read_text()) and time.monotonic() < end_s:
            time.sleep(0.02)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.terminate()
        assert process.wait(60) == 130
    assert not list((toy_home.data / "temp").iterdir())
    mask = int(re.findall(r"SigIgn:\s*(\w+)", status)[0], 16)
    names = {
        n for n in ("HUP", "INT", "TERM") if mask >> signal.Signals[f"SIG{n}"] - 1 & 1
    }
    assert names == {ignored}


# which

ROUTES = {
    "https://x.com/nasa/status/1": ("twitter", "gallery-dl"),
    "https://www.reddit.com/r/pics/comments/aa1/x/": ("reddit", "gallery-dl"),
    "https://www.youtube.com/watch?v=aaaaaaaaaaa": ("youtube", "yt-dlp"),
    "https://imgur.com/a/abcde": (None, "gallery-dl"),
    "https://vimeo.com/76979871": (None, "yt-dlp"),
    "https://unknown.example/page": (None, "yt-dlp"),
}


def test_which_says_where_more_links_go_than_are_asked_about_at_once(
    home: Home,
) -> None:
    known = list(engine_urls.links())
    sample = known[:: max(len(known) // 150, 1)][:150]
    assert len(sample) == 150
    done = home.run("which", "-", text_in="\n".join(["", *ROUTES, "", *sample, ""]))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[: len(ROUTES)] == [
        {"url": url, "platform": platform, "engine": engine}
        for url, (platform, engine) in ROUTES.items()
    ]
    assert [line["url"] for line in lines] == [*ROUTES, *sample]
    lost = [line["url"] for line in lines if not line["engine"]]
    assert len(lost) <= 4, lost  # 3 % of the engines' own examples
    assert (done.returncode, done.stderr) == (bool(lost), "")


def test_which_fails_when_a_link_goes_nowhere_and_mixes_no_log_into_the_answer(
    toy_home: Home,
) -> None:
    toy_home.plugin("bad", "1 / 0")
    env = {"BOSS_BOT_PLUGINS__GONE__X": "1", "BOSS_BOT_LOG_LEVEL": "DEBUG"}
    links = ["https://shop.toy.example/1", "https://elsewhere.example/", "ftp://x/"]
    done = toy_home.run("which", *links, env=env)
    assert done.returncode == 1
    shop, elsewhere, wrong = map(json.loads, done.stdout.splitlines())
    assert shop == {"url": links[0], "platform": "shop", "engine": "toy"}
    assert elsewhere == {"url": links[1], "platform": None, "engine": None}
    assert "Invalid URL" in wrong["error"] and wrong["engine"] is None
    assert "gone" in done.stderr and "bad is off" in done.stderr


def test_garbage_is_collected_once_the_start_is_over(bare_home: Home) -> None:
    bare_home.add_plugin(PLUGINS / "garbage.py")
    done = bare_home.run("garbage")
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


# plugins and check


def test_plugins_lists_state_and_hooks(toy_home: Home) -> None:
    done = toy_home.run("plugins", env={"BOSS_BOT_DISABLED_PLUGINS": '["setup"]'})
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert re.search(r"\bon\b.*register_engines, register_platforms", lines["toy"])
    assert "off: disabled in the settings" in lines["setup"]
    toy_home.plugin("bad", "raise RuntimeError('a rather long reason ' * 9)")
    done = toy_home.run("plugins")
    assert done.returncode == 1 and "off: RuntimeError: a rather long" in done.stdout
    shown = " ".join(done.stdout.split())
    assert shown.count("a rather long reason") == 9


def test_check_says_what_is_missing_or_off_and_how_to_get_it(toy_home: Home) -> None:
    toy_home.plugin("broken", "import nowhere")
    done = toy_home.run("check", env={"PATH": "/nowhere"})
    assert done.returncode == 1
    assert "ok       toy 9.9" in done.stdout
    for words in (
        "the Discord token is missing: the bot cannot connect.",
        "BOSS_BOT_DISCORD_TOKEN",
        "ffmpeg is missing",
        "apt install",
        "the plugin broken is off: ModuleNotFoundError: No module",
    ):
        assert words in done.stdout


def test_command_whose_child_dies_says_so_without_a_traceback(toy_home: Home) -> None:
    toy_home.add_plugin(PLUGINS / "deadly.py")
    done = toy_home.run("which", "https://a.example/x")
    assert done.returncode == 1
    assert "The download process died (exit 1)." in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_side_of_the_child_is_named(toy_home: Home) -> None:
    (toy_home.path / "plugins" / "parts" / "_child.py").unlink()
    done = toy_home.run("which", "https://a.example/x")
    assert done.returncode == 2
    assert "_child.py is missing" in done.stderr
    assert "The part runner is missing. child_runner (ours) is off" in done.stderr


def test_check_names_a_cookies_file_that_is_not_there(
    home: Home, tmp_path: Path
) -> None:
    for path in home.path.glob("plugins/engines/[!_]*.py"):  # they take long to start
        path.unlink()
    missing = tmp_path / "cookies.txt"
    env = {"BOSS_BOT_PLUGINS__INSTAGRAM__COOKIES_FILE": str(missing)}
    done = home.run("check", env=env)
    assert f"{missing} is missing: instagram: there is no login." in done.stdout
    assert "Correct cookies_file in [plugins.instagram]" in done.stdout
    done = home.run("check", "--login", env=env)
    lines = f"dead     instagram: {missing} is missing", "Set new cookies in [plugins."
    assert all(line in done.stdout for line in lines)
    assert done.returncode == 1


def test_log_file_that_cannot_be_written_is_named_and_the_console_has_the_log(
    toy_home: Home,
) -> None:
    day = time.strftime("%Y-%m-%d")
    (toy_home.data / "logs" / f"boss-bot_{day}.log").mkdir(parents=True)
    done = toy_home.run("plugins")
    assert done.returncode == 0 and "off" not in done.stdout
    assert "data/logs: " in done.stderr and "Change the owner" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("fatal", [True, False])
def test_check_machine_findings_are_shown_by_check(toy_home: Home, fatal: bool) -> None:
    toy_home.add_plugin(PLUGINS / "cats.py")
    env = {"BOSS_BOT_DISCORD_TOKEN": TOKEN, "BOSS_BOT_PLUGINS__CATS__FATAL": str(fatal)}
    disabled = {"BOSS_BOT_DISABLED_PLUGINS": '["toy"]'} if fatal else {}
    done = toy_home.run("check", env=env | disabled)
    assert "no cat: no purr.\n         Get one.\n" in done.stdout
    assert done.returncode == fatal, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert ("toy" in done.stdout) == (not disabled)


# What ends with exit 2


def test_no_token_off_a_terminal_says_what_to_do(home_without_engines: Home) -> None:
    done = home_without_engines.run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "BOSS_BOT_DISCORD_TOKEN" in done.stderr
    assert str(home_without_engines.path / ".env") in done.stderr
    assert "https://discord.com/developers/applications" in done.stderr


def test_unknown_command_names_the_known(toy_home: Home) -> None:
    done = toy_home.run("gett")
    assert done.returncode == 2
    for name in ("gett", "get", "which", "plugins", "check", "setup"):
        assert name in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["get", "which", "plugins", "check", "--config", "--debug"]),
        (["get", "--help"], ["--to", "--limit", "URL"]),
    ],
)
def test_help_tells_of_every_command(
    toy_home: Home, arguments: list[str], words: list[str]
) -> None:
    done = toy_home.run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in words if word not in done.stdout] == []


def test_help_loads_no_large_library(bare_home: Home) -> None:
    python, *rest = bare_home.command("--help")
    done = subprocess.run(
        [python, "-X", "importtime", *rest],
        env=bare_home.environment(),
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "bossbot" in loaded
    large = ("discord", "aiohttp", "aiosqlite", "yt_dlp", "gallery_dl", "numpy", "PIL")
    assert loaded.isdisjoint(large)


def test_version_is_the_bots_and_the_plugin_apis(toy_home: Home) -> None:
    done = toy_home.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    shown = f"Boss-Bot {bossbot.__version__} (plugin API {bossbot.API})\n"
    assert done.stdout == shown and not toy_home.data.exists()


def test_disabled_part_stops_the_bot_with_its_name_and_reason(toy_home: Home) -> None:
    env = {
        "BOSS_BOT_DISABLED_PLUGINS": '["sqlite_queue"]',
        "BOSS_BOT_DISCORD_TOKEN": TOKEN,
    }
    done = toy_home.run(env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "The part queue is missing. sqlite_queue (ours) is off: disabled in the "
        "settings\nCorrect that, or add another plugin with that part."
    ) in done.stderr
    assert "Traceback" not in done.stderr
    done = toy_home.run("which", "https://shop.toy.example/1", env=env)
    assert done.returncode == 0, "it needs no queue"


def test_option_is_not_abbreviated(toy_home: Home) -> None:
    done = toy_home.run("--conf", "/nonexistent", "plugins")
    assert done.returncode == 2 and "--conf" in done.stderr


def test_level_without_a_name_breaks_no_log(toy_home: Home) -> None:
    toy_home.plugin(
        "odd", "import logging\nlogging.getLogger('odd').log(25, 'hello')\n"
    )
    done = toy_home.run("plugins", "--debug")
    assert done.returncode == 0 and "odd: hello" in done.stderr


def test_config_option_names_the_file(toy_home: Home, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(f'data_dir = "{tmp_path / "elsewhere"}"\n')
    done = toy_home.run("--config", path, "which", "https://shop.toy.example/1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "logs").is_dir() and not toy_home.data.exists()
    done = toy_home.run("--config", tmp_path / "missing.toml", "plugins")
    assert done.returncode == 2 and "missing.toml" in done.stderr


def test_data_folder_that_cannot_be_written_says_what_to_do(toy_home: Home) -> None:
    toy_home.data.write_text("a file in its place")
    done = toy_home.run("plugins")
    assert done.returncode == 2
    assert str(toy_home.data) in done.stderr and "data_dir" in done.stderr
    assert toy_home.data.read_text() == "a file in its place"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.toml", "max_items = = 3", ["line 1", "config.toml"]),
        ("config.toml", "max_itmes = 3", ["line 1", "did you mean max_items?"]),
        (".env", "BOSS_BOT_MAX_ITEMS=many", [".env", "max_items"]),
        (".env", "BOSS_BOT_PLUGINS_DIR=nowhere", ["nowhere", "plugins_dir"]),
    ],
)
def test_wrong_settings_end_with_their_place(
    toy_home: Home, name: str, content: str, words: list[str]
) -> None:
    (toy_home.path / name).write_text(content)
    done = toy_home.run("plugins")
    assert (done.returncode, done.stdout) == (2, "")
    assert [word for word in words if word not in done.stderr] == []
    assert "Traceback" not in done.stderr


REMEDY = re.compile(
    r"\b(set|stop|update|put|start again|correct|restore|must|takes a|are JSON|run)\b",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(r"mistakes|REMEDY|NO_TOKEN|remedy|plugin\.stem")


def test_every_start_error_names_a_remedy() -> None:
    found = 0
    for path in [*ROOT.glob("*.py"), *ROOT.glob("plugins/*/**/*.py")]:
        code = path.read_text("utf-8")
        for node in ast.walk(ast.parse(code if "StartError(" in code else "")):
            wanted = isinstance(node, ast.Call) and ast.unparse(node.func)
            if wanted != "StartError" or ELSEWHERE.search(ast.unparse(node)):
                continue
            found += 1
            parts = (p for p in ast.walk(node) if isinstance(p, ast.Constant))
            text = " ".join(str(part.value) for part in parts)
            assert REMEDY.search(text), ast.unparse(node)
    assert found >= 12
