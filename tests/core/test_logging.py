"""The log: one line per record, no secret in it, and where it goes."""

import logging
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import AddPlugin, Home, MakeSettings, SmallApp
from loguru import logger
from pydantic import SecretStr

import bossbot
import bossbot_contracts
from bossbot import OutOfReach, PluginConfig, redact

PLUGINS = Path(__file__).parent / "plugins"
TOKEN = "MTAwMDAwMDAw.GsEcRe.very-secret-token"
COOKIE = "cookie-0123456789abcdef"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) ")

Written = Callable[[], tuple[str, str, str]]
Start = Callable[..., Written]


@pytest.fixture
def start(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> Iterator[Start]:
    """Sets logging up; what it gives tells what was written to stdout, stderr, file."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(debug: bool = False, **values: Any) -> Written:
        settings = make_settings(discord_token=SecretStr(TOKEN), **values)
        bossbot.prepare_data(settings.data_dir)
        bossbot.set_up_log(settings, debug, sys.stdout)

        def written() -> tuple[str, str, str]:
            (path,) = (settings.data_dir / "logs").iterdir()
            return (*capsys.readouterr(), path.read_text("utf-8"))

        return written

    yield start
    logger.remove()
    logger.configure(patcher=lambda record: None)
    root.handlers[:], root.level = handlers, level


def fail(text: str = "") -> None:
    token_in_a_variable, harmless = TOKEN, "shown-when-debugging"
    raise ValueError(f"{text} {len(token_in_a_variable)} {len(harmless)}")


def log_exception(text: str = "", message: str = "it failed") -> None:
    try:
        fail(text)
    except ValueError:
        logger.exception(message)


HOSTILE = [
    "two\nlines",
    "two\r\nlines",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\u202eevil\u200b",
    "\u2028separator\u2029",
    "back\x08space\x00",
    "half \ud800 a pair",
    "\n2026-01-01 00:00:00 INFO    forged",
    "{braces} %s {0} <red>markup</red>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_record_is_one_line_whatever_it_says(start: Start, text: str) -> None:
    written = start(debug=True)
    logger.info("title: {}", text)
    logger.bind(job="0a", guild=text).info("bound")
    logging.getLogger("some.library").warning("%s", text)
    stdout, stderr, file = written()
    assert stderr == "" and stdout == file
    lines = file.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert RECORD.match(line) and not re.search("[\x00-\x1f\u202e\u200b]", line)
    assert "some.library" in lines[2] and "job=0a" in lines[1]


@pytest.mark.parametrize("text", HOSTILE)
def test_traceback_forges_no_record_and_moves_no_cursor(
    start: Start, text: str
) -> None:
    written = start()
    log_exception(text)
    logger.info("next")
    _, stderr, file = written()
    for shown in (stderr, file):
        assert "ValueError" in shown and "Logging error" not in shown
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", shown)
    assert len([line for line in file.splitlines() if RECORD.match(line)]) == 2
    assert "forged" not in "".join(filter(RECORD.match, file.splitlines()))


def test_braces_and_markup_in_a_message_are_only_text(start: Start) -> None:
    written = start()
    logger.info("{}", "{braces} <red>markup</red> {0}")
    log_exception("{braces} <red>")
    stdout, stderr, _ = written()
    assert "{braces} <red>markup</red> {0}" in stdout and "{braces} <red>" in stderr


@pytest.mark.parametrize("debug", [False, True])
def test_no_secret_is_ever_written(start: Start, debug: bool) -> None:
    class Config(PluginConfig):
        cookie: SecretStr = SecretStr(COOKIE)
        more: dict[str, SecretStr]
        some: list[SecretStr]

    table = {"site": {"session_id": "another-secret-3", "name": "harmless"}}
    written = start(debug, plugins=table)
    more = {"a": SecretStr("another-secret-1")}
    config = Config(more=more, some=[SecretStr("another-secret-2")])
    bossbot.hide_secrets("a plugin", bossbot.secret_values(config))
    raw = f"{TOKEN} {COOKIE} another-secret-1 another-secret-2 another-secret-3"
    logger.info("{}", raw)
    logger.info(raw)
    logger.bind(user=raw).warning("bound")
    log_exception(raw, raw)
    logging.getLogger("discord.http").debug("header: %s", raw)
    logging.getLogger("discord").error("%r", {"token": raw, "config": config})
    for text in written():
        for secret in raw.split():
            assert secret not in text
    assert "[secret]" in redact(raw) and "harmless" not in bossbot_contracts._secrets


@pytest.mark.parametrize(
    "text",
    [
        "POST https://discord.com/api/v10/interactions/123/{}/callback",
        "PATCH https://discord.com/api/v10/webhooks/123/{}/messages/@original",
        "WebSocket Event: {{'t': 'INTERACTION_CREATE', 'd': {{'token': '{}'}}}}",
    ],
)
def test_interaction_tokens_of_discord_are_not_written(start: Start, text: str) -> None:
    token = "aW50ZXJhY3Rpb246MTIz.NDU2Nzg5_long-and-secret"
    written = start(debug=True)
    logging.getLogger("discord.gateway").debug("%s", text.format(token))
    *_, file = written()
    assert "[secret]" in file and token not in file and "discord.gateway" in file


@pytest.mark.parametrize("debug", [False, True])
def test_chatter_of_discord_is_written_when_debugging(
    start: Start, debug: bool
) -> None:
    written = start(debug)
    logging.getLogger("discord.client").info("a log-in")
    logging.getLogger("discord.gateway").debug("a message")
    *_, file = written()
    assert ("a log-in" in file) is ("a message" in file) is debug


def test_variables_are_only_shown_when_debugging(start: Start) -> None:
    written = start()
    log_exception()
    assert "shown-when-debugging" not in "".join(written())
    written = start(debug=True)
    log_exception()
    _, stderr, file = written()
    assert "harmless = 'shown-when-debugging'" in stderr
    assert "harmless = 'shown-when-debugging'" in file


def test_errors_go_to_stderr_and_details_only_to_the_file(start: Start) -> None:
    written = start()
    for level in ("debug", "info", "warning", "error"):
        getattr(logger, level)(f"a {level}")
    stdout, stderr, file = written()
    words = [re.findall(r"a (\w+)", text) for text in (stdout, stderr, file)]
    assert words == [
        ["info", "warning"],
        ["error"],
        ["debug", "info", "warning", "error"],
    ]


def test_log_level_is_the_consoles(start: Start) -> None:
    written = start(log_level="ERROR")
    logger.warning("quiet")
    stdout, _, file = written()
    assert stdout == "" and "quiet" in file


def test_log_file_has_the_date_and_is_its_owners(
    start: Start, make_settings: MakeSettings
) -> None:
    before = datetime.now()
    old = os.umask(0)
    try:
        start()
        logger.info("x")
    finally:
        os.umask(old)
    (path,) = (make_settings().data_dir / "logs").iterdir()
    names = {f"boss-bot_{day:%Y-%m-%d}.log" for day in (before, datetime.now())}
    assert path.name in names
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.fixture
def logs(make_settings: MakeSettings) -> Path:
    return make_settings().data_dir / "logs"


def sizes(logs: Path) -> list[int]:
    return [path.stat().st_size for path in logs.iterdir()]


def test_flood_of_messages_stays_within_the_cap(start: Start, logs: Path) -> None:
    start(max_log_size="1MiB")
    for number in range(1500):
        logger.debug("{} {}", number, "\u2603" * 500)
        if number % 100 == 0:
            assert sum(sizes(logs)) <= 2**20
    newest = max(logs.iterdir(), key=os.path.getmtime)
    assert "1499 " in newest.read_text("utf-8")
    assert sum(sizes(logs)) > 2**19
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs.iterdir()} == {0o600}


def test_queue_that_is_out_of_reach_is_one_line(start: Start) -> None:
    written = start()
    with logger.catch(message="the owner may be told again"):
        raise OutOfReach("The queue is away.")
    _, stderr, file = written()
    assert stderr == file and len(file.splitlines()) == 1
    assert file.endswith("the owner may be told again: The queue is away.\n")


def test_traceback_without_end_is_cut(start: Start) -> None:
    written = start()
    log_exception("line\n" * 200_000, "it failed")
    _, stderr, file = written()
    assert "it failed" in file and "test_logging.py" in file
    assert len(file) < 100_000 and len(stderr) < 100_000


def test_no_cap_leaves_one_file_a_day(start: Start, logs: Path) -> None:
    start(max_log_size=0)
    for _ in range(50):
        logger.debug("x" * 2000)
    assert len(sizes(logs)) == 1


def test_old_logs_go_when_the_log_begins(start: Start, logs: Path) -> None:
    logs.mkdir(parents=True)
    for day, size in ((1, 10), (2, 10), (3, 800), (4, 200)):
        path = logs / f"boss-bot_2026-01-0{day}.log"
        path.write_bytes(bytes(size * 1024))
        when = time.time() - 86400 * (15 if day == 1 else 10 - day)
        os.utime(path, (when, when))
    (logs / "own.log").touch()
    start(max_log_size="1MiB")
    kept = {path.name for path in logs.iterdir() if "2026-01" in path.name}
    assert kept == {"boss-bot_2026-01-04.log"}
    assert (logs / "own.log").exists()


def test_new_day_has_a_new_file(start: Start, logs: Path) -> None:
    start()
    logger.info("x")
    (path,) = logs.iterdir()
    next_day = logger.patch(lambda r: r.update(time=r["time"] + timedelta(days=1)))
    next_day.info("y")
    text = path.read_text("utf-8")
    assert text.endswith("y\n") and "x" not in text


def test_strange_levels_of_libraries_are_logged_too(start: Start) -> None:
    written = start(debug=True)
    library = logging.getLogger("odd")
    library.setLevel(1)
    for level in (1, 15, 25, 50, 99):
        library.log(level, "level-%s", level)
    _, _, file = written()
    assert [n for n in (15, 25, 50, 99) if f"level-{n}" not in file] == []


def test_secret_of_a_plugin_is_kept_out_whatever_its_name(
    start: Start, small_app: SmallApp, add_plugin: AddPlugin
) -> None:
    add_plugin(PLUGINS / "keeps_a_secret.py", "site")
    written = start(site__plain=COOKIE)
    small_app(site__plain=COOKIE)
    logger.info("the value is {}", COOKIE)
    assert COOKIE not in "".join(written())


def test_plugin_that_fails_with_a_secret_does_not_tell_it(
    bare_home: Home, tmp_path: Path
) -> None:
    bare_home.add_plugin(PLUGINS / "tells_its_secret.py", "site")
    env = {
        "BOSS_BOT_PLUGINS__SITE__AUTH_TOKEN": COOKIE,
        "BOSS_BOT_DISCORD_TOKEN": TOKEN,
    }
    done = bare_home.run("--debug", "plugins", env=env)
    log = "".join(path.read_text() for path in (bare_home.data / "logs").iterdir())
    for text in (done.stdout, done.stderr, log):
        assert COOKIE not in text and TOKEN not in text
    assert "RuntimeError: [secret]" in log and done.returncode == 1
