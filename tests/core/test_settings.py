"""The settings: where they come from, and what is said when one is wrong."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from bossbot_plugins import discord_courier
from conftest import ROOT, Home, MakeApp, MakeSettings
from pydantic import ByteSize, SecretStr

import bossbot
from bossbot import Settings, StartError, load_settings

TOKEN = "MTAwMDAwMDAw.GsEcRe.very-secret-token"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to write .env, config.toml and data/config.toml into."""
    (tmp_path / "data").mkdir()
    return tmp_path


def mistakes(root: Path, config: Path | None = None) -> str:
    """The text of the StartError that loading must raise."""
    with pytest.raises(StartError) as caught:
        load_settings(config, root=root)
    return str(caught.value)


def write_env(root: Path, *lines: str) -> Path:
    path = root / ".env"
    path.write_text("\n".join([*lines, ""]), "utf-8")
    path.chmod(0o600)
    return path


# Where they come from


def test_missing_config_is_said_and_the_defaults_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_settings(root=tmp_path).max_items == 50
    assert "config.toml is missing" in capsys.readouterr().err


def test_defaults_need_no_file(root: Path) -> None:
    settings = load_settings(root=root)
    assert settings.max_queue_size == 50
    assert settings.max_download_size == 200 * 2**20
    assert settings.plugins == {}
    assert settings.discord_token is None


def test_stronger_source_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def items() -> int:
        return load_settings(root=root).max_items

    (root / "config.toml").write_text("max_items = 1")
    assert items() == 1
    (root / "data" / "config.toml").write_text("max_items = 2")
    assert items() == 2
    write_env(root, "BOSS_BOT_MAX_ITEMS=3")
    assert items() == 3
    monkeypatch.setenv("BOSS_BOT_MAX_ITEMS", "4")
    assert items() == 4


def test_sources_are_merged_key_by_key(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config.toml").write_text("[plugins.a]\nx = 1\ny = 1\n[plugins.b]\nz = 1")
    (root / "data" / "config.toml").write_text("[plugins.a]\ny = 2")
    monkeypatch.setenv("BOSS_BOT_PLUGINS__B__Z", "word")
    settings = load_settings(root=root)
    assert settings.plugins == {"a": {"x": 1, "y": 2}, "b": {"z": "word"}}


def test_data_dir_of_the_environment_says_where_the_owners_file_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.toml").write_text("max_items = 7")
    monkeypatch.setenv("BOSS_BOT_DATA_DIR", str(elsewhere))
    settings = load_settings(root=root)
    assert (settings.max_items, settings.data_dir) == (7, elsewhere)


def test_home_that_nobody_has_is_a_folder_like_any(root: Path) -> None:
    (root / "config.toml").write_text('plugins_dir = "~nobody-at-all/x"')
    assert load_settings(root=root).plugins_dir == ROOT / "~nobody-at-all/x"


def test_keys_in_a_file_may_have_capitals_and_the_file_a_mark(root: Path) -> None:
    (root / "config.toml").write_text("max_items = 1")
    (root / "data" / "config.toml").write_text("Max_Items = 2", "utf-8-sig")
    assert load_settings(root=root).max_items == 2
    (root / "data" / "config.toml").write_text("Max_Items = 0", "utf-8-sig")
    assert "data/config.toml, line 1: max_items" in mistakes(root)
    (root / "data" / "config.toml").write_text("[plugins.a]\nx = 1\n[Plugins.b]\ny = 2")
    assert load_settings(root=root).plugins == {"a": {"x": 1}, "b": {"y": 2}}


@pytest.mark.parametrize("prefix", ["", " ", "a long prefix"])
def test_prefix_that_nobody_could_type_is_refused(
    make_app: MakeApp, make_settings: MakeSettings, prefix: str
) -> None:
    settings = make_settings(discord_client__command_prefix=prefix)
    app = make_app(settings)
    assert "[plugins.discord_client] command_prefix: " in (
        app.plugins.all["discord_client"].off
    )
    with pytest.raises(StartError, match="command_prefix"):
        _ = app.client


def test_data_dir_may_start_with_a_tilde(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))
    (root / "config.toml").write_text('data_dir = "~/media"')
    (root / "media").mkdir()
    (root / "media" / "config.toml").write_text("max_items = 7")
    settings = load_settings(root=root)
    assert (settings.max_items, settings.data_dir) == (7, root / "media")


def test_config_option_replaces_the_main_file(root: Path) -> None:
    (root / "config.toml").write_text("max_items = 1\nmax_queue_size = 1")
    other = root / "other.toml"
    other.write_text("max_items = 2")
    settings = load_settings(other, root=root)
    assert (settings.max_items, settings.max_queue_size) == (2, 50)


def test_config_option_names_a_missing_file(root: Path) -> None:
    assert "missing.toml: no such file" in mistakes(root, root / "missing.toml")


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ('"50MiB"', 50 * 2**20),
        ('"1GiB"', 2**30),
        ('"1.5 MiB"', 3 * 2**19),
        ('"5MB"', 5_000_000),
        ("1234", 1234),
    ],
)
def test_size_may_have_a_unit(root: Path, written: str, size: int) -> None:
    (root / "config.toml").write_text(f"max_file_size = {written}")
    assert load_settings(root=root).max_file_size == ByteSize(size)


@pytest.mark.parametrize("written", ['"huge"', '"5 QiB"', '""'])
def test_what_is_no_size_is_told_how_one_is_written(root: Path, written: str) -> None:
    (root / "config.toml").write_text(f"max_file_size = {written}")
    with pytest.raises(StartError, match=r"max_file_size: .*such as 20MiB"):
        load_settings(root=root)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("[]", []),
    ],
)
def test_list_from_the_environment_is_json(
    root: Path, monkeypatch: pytest.MonkeyPatch, written: str, names: list[str]
) -> None:
    monkeypatch.setenv("BOSS_BOT_DISABLED_PLUGINS", written)
    assert load_settings(root=root).disabled_plugins == names


def test_empty_variable_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSS_BOT_DISABLED_PLUGINS", "")
    monkeypatch.setenv("BOSS_BOT_MAX_ITEMS", "")
    write_env(root, "BOSS_BOT_DISCORD_TOKEN=", "BOSS_BOT_MAX_ITEMS=7")
    settings = load_settings(root=root)
    assert settings.disabled_plugins == [] and settings.discord_token is None
    assert settings.max_items == 7


def test_list_with_only_commas_is_answered_with_the_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOSS_BOT_DISABLED_PLUGINS", "a,b")
    text = mistakes(root)
    assert '"disabled_plugins"' in text and "JSON" in text and '["a", "b"]' in text


def test_list_of_sizes_from_the_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "BOSS_BOT_PLUGINS__DISCORD_COURIER__UPLOAD_LIMITS",
        '["1MiB", "2MiB", 3145728, "4MiB"]',
    )
    table = load_settings(root=root).plugins["discord_courier"]
    limits = discord_courier.Config(**table).upload_limits
    assert limits == [n * 2**20 for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("value", ["a1b2", "1234567890", "12345e67", "true", "null"])
def test_plugins_value_from_the_environment_reaches_it_as_it_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A cookie may look like a number."""
    monkeypatch.setenv("BOSS_BOT_PLUGINS__TWITTER__AUTH_TOKEN", value)
    table = load_settings(root=root).plugins["twitter"]

    class Config(bossbot.PluginConfig):
        auth_token: SecretStr

    assert Config(**table).auth_token.get_secret_value() == value


def test_token_comes_from_env_file_or_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_env(root, f"BOSS_BOT_DISCORD_TOKEN={TOKEN}")
    token = load_settings(root=root).discord_token
    assert token is not None and token.get_secret_value() == TOKEN
    monkeypatch.setenv("BOSS_BOT_DISCORD_TOKEN", "other")
    token = load_settings(root=root).discord_token
    assert token is not None and token.get_secret_value() == "other"


def test_env_file_that_others_can_read_is_closed_with_a_notice(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_env(root, f"BOSS_BOT_DISCORD_TOKEN={TOKEN}")
    (root / "config.toml").touch()
    load_settings(root=root)
    assert capsys.readouterr() == ("", "")
    path.chmod(0o644)
    load_settings(root=root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    notice = capsys.readouterr().err
    assert str(path) in notice and "0600" in notice and TOKEN not in notice


def test_foreign_lines_in_the_env_file_are_ignored(root: Path) -> None:
    write_env(root, "EDITOR=vi", "# note", "export PORT=1", "BOSS_BOT_MAX_ITEMS=3")
    assert load_settings(root=root).max_items == 3


def test_relative_paths_start_at_the_bots_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    settings = load_settings(root=root)
    assert settings.plugins_dir == ROOT / "plugins"
    assert Settings(data_dir=Path("x/y")).data_dir == ROOT / "x" / "y"


def test_bot_works_from_another_working_directory(
    bare_home: Home, tmp_path: Path
) -> None:
    (bare_home.path / ".env").write_text("BOSS_BOT_DATA_DIR=media\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = bare_home.run("plugins", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert (bare_home.path / "media" / "logs").is_dir()
    assert not list(elsewhere.iterdir())


# What is said when one is wrong


def test_unknown_key_is_named_with_line_and_a_guess(root: Path) -> None:
    (root / "config.toml").write_text('# first\nmax_items = 3\nmax_itmes = "x"\n')
    text = mistakes(root)
    assert f"{root / 'config.toml'}, line 3: max_itmes" in text
    assert "did you mean max_items?" in text


def test_table_of_a_plugin_that_is_not_below_plugins_is_led_there(root: Path) -> None:
    (root / "config.toml").write_text('[retention]\nmax_storage = "3GiB"\n')
    told = "line 1: retention: no such setting; the table of a plugin is "
    assert f"{told}[plugins.retention]" in mistakes(root)


def test_setting_of_a_plugin_outside_its_table_is_led_there(root: Path) -> None:
    (root / "config.toml").write_text(
        "[plugins.a]\nx = 1\n# sleep_s = 3\n[plugins.b]\n"
    )
    (root / "data" / "config.toml").write_text("sleep_s = 5\nx = 2\n")
    text = mistakes(root)
    for line in ("line 1: sleep_s", "line 2: x"):
        assert f"{line}: no such setting; it belongs below [plugins.a]" in text


@pytest.mark.parametrize(
    "written",
    ["plugins.a = 5", "[plugins]\na = 5", "'shard' = true", "[shard]", "shard.x = 1"],
)
def test_line_is_named_however_the_key_is_written(root: Path, written: str) -> None:
    (root / "config.toml").write_text(f"\n{written}\n")
    line = 2 + written.count("\n")
    assert f"{root / 'config.toml'}, line {line}: " in mistakes(root)


def test_every_wrong_value_is_named_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config.toml").write_text(
        'max_items = 0\ntrace_hooks = "maybe"\n\nmax_file_size = "5 parsecs"\n'
        'log_level = "LOUD"\n'
    )
    (root / "data" / "config.toml").write_text("\nmax_queue_size = true\n")
    monkeypatch.setenv("BOSS_BOT_PROCESS_TIMEOUT_S", "-1")
    write_env(root, "BOSS_BOT_MAX_CONCURRENT_DOWNLOADS=many")
    lines = mistakes(root).splitlines()
    for words in (
        ("config.toml, line 1: max_items", "greater than or equal to 1"),
        ("config.toml, line 2: trace_hooks", "boolean"),
        ("config.toml, line 4: max_file_size",),
        ("config.toml, line 5: log_level", "'DEBUG'"),
        ("the environment: process_timeout_s", "greater than 0"),
        (".env: max_concurrent_downloads", "integer"),
    ):
        assert any(all(w in line for w in words) for line in lines), (words, lines)


def test_wrong_value_is_blamed_on_the_source_that_won(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config.toml").write_text("max_items = 3")
    monkeypatch.setenv("BOSS_BOT_MAX_ITEMS", "0")
    assert "the environment: max_items" in mistakes(root)


def test_plugin_setting_that_is_no_table_is_blamed_on_its_own_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config.toml").write_text("[plugins]\nretention = 5\n")
    monkeypatch.setenv("BOSS_BOT_PLUGINS__PROGRESS__EDIT_INTERVAL_S", "3")
    assert "config.toml, line 2: plugins.retention" in mistakes(root)


def test_syntax_error_is_told_with_its_line(root: Path) -> None:
    (root / "config.toml").write_text("max_items = 3\nmax_queue_size = = 4\n")
    text = mistakes(root)
    assert str(root / "config.toml") in text and "line 2" in text


def test_part_of_a_setting_without_parts_is_unknown(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOSS_BOT_MAX_ITEMS__X", "1")
    assert "the environment: unknown BOSS_BOT_MAX_ITEMS__X" in mistakes(root)


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_unknown_variable_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == ".env":
        write_env(root, "BOSS_BOT_MAX_ITMES=3")
    else:
        monkeypatch.setenv("BOSS_BOT_MAX_ITMES", "3")
    text = mistakes(root)
    assert where in text and "max_itmes" in text.lower()
    assert "did you mean max_items?" in text
    assert text.lower().count("max_itmes") == 1


def test_file_of_another_that_others_can_read_is_named_and_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_env(root, f"BOSS_BOT_DISCORD_TOKEN={TOKEN}")
    path.chmod(0o644)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)  # who runs the tests may be root
    assert load_settings(root=root).discord_token == SecretStr(TOKEN)
    notice = capsys.readouterr().err
    assert f"{path} was readable by others: chmod 600 failed" in notice


def test_token_in_a_toml_file_is_refused(root: Path) -> None:
    for name in ("config.toml", "data/config.toml"):
        (root / name).write_text(f'discord_token = "{TOKEN}"')
        text = mistakes(root)
        assert str(root / name) in text and ".env" in text
        (root / name).unlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", b"max_items = 3 \xff"),
        ("config.toml", b"data_dir = 5"),
        ("config.toml", b"plugins = 5"),
        ("config.toml", b"disabled_plugins = 5"),
        ("config.toml", b"plugins = []"),
        (".env", b"BOSS_BOT_DISCORD_TOKEN=caf\xe9"),
        (".env", b"BOSS_BOT_PLUGINS=oops"),
        (".env", b"BOSS_BOT_PLUGINS__PROGRESS=oops"),
        (".env", b"BOSS_BOT_DISABLED_PLUGINS=1,2"),
    ],
)
def test_broken_file_ends_with_a_sentence(
    root: Path, name: str, content: bytes
) -> None:
    (root / name).write_bytes(content)
    assert name in mistakes(root)


def test_no_error_text_holds_a_secret(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "config.toml").write_text(
        f'discord_token = ["{TOKEN}"]\nmax_items = "{TOKEN}"\n'
        f'log_level = "{TOKEN}"\nplugins = "{TOKEN}"\n'
    )
    monkeypatch.setenv("BOSS_BOT_MAX_QUEUE_SIZE", TOKEN)
    write_env(root, f"BOSS_BOT_DISCORD_TOKNE={TOKEN}", f"BOSS_BOT_TRACE_HOOKS={TOKEN}")
    text = mistakes(root)
    assert TOKEN not in text and "trace_hooks" in text
    (root / "config.toml").write_text(f'discord_token = "{TOKEN}')
    assert TOKEN not in mistakes(root)


DEEP = "[" * 100_000
TABLES = '{"a":' * 900 + "1" + "}" * 900


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("MAX_FILE_SIZE", value) for value in ("9" * 30, "8 EiB", "99999999999 TiB")],
        *[("MAX_ITEMS", "9" * 30), ("MAX_QUEUE_SIZE", "9223372036854775808")],
        *[("PROCESS_TIMEOUT_S", value) for value in ("inf", "1e300")],
        ("PLUGINS__CHILD_RUNNER__MEMORY_LIMIT", "9" * 30),
        ("PLUGINS__DISCORD_COURIER__UPLOAD_LIMITS", f'["{"9" * 30}", "1", "1", "1"]'),
        ("PLUGINS__LOCAL_WORKER__DOWNLOAD_TIMEOUT_S", "inf"),
    ],
)
def test_number_too_large_for_later_is_named(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_app: MakeApp,
    key: str,
    value: str,
) -> None:
    name = key.lower().split("__")[-1]
    monkeypatch.setenv(f"BOSS_BOT_{key}", value)
    if "PLUGINS" in key:
        said = make_app(load_settings(root=root)).plugins.all[
            key.lower().split("__")[1]
        ]
        assert re.search(rf"{name}: the number is too large", said.off)
    else:
        assert f"the environment: {name}: the number is too large" in mistakes(root)


@pytest.mark.parametrize("written", ["9" * 30, "inf", "0x" + "f" * 5000])
def test_number_too_large_is_named_with_its_line(root: Path, written: str) -> None:
    key = "process_timeout_s" if written == "inf" else "max_items"
    (root / "config.toml").write_text(f"\n{key} = {written}\n")
    said = mistakes(root)
    assert f"config.toml, line 2: {key}: the number is too large" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("DISABLED_PLUGINS", DEEP), ("PLUGINS", '{"a":' * 3000), ("PLUGINS", TABLES)],
        ("PLUGINS__" + "__".join(["A"] * 1500), "1"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_variable_nested_too_deep_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, place: str, key: str, value: str
) -> None:
    if place == "file":
        write_env(root, f"BOSS_BOT_{key}='{value}'")
    else:
        monkeypatch.setenv(f"BOSS_BOT_{key}", value)
    said = mistakes(root)
    assert said.startswith("The environment or ") and "nested too deep" in said
    assert len(said) < 1000


@pytest.mark.parametrize("value", [DEEP, TABLES])
def test_variable_of_a_plugin_nested_too_deep_switches_it_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, make_app: MakeApp, value: str
) -> None:
    monkeypatch.setenv("BOSS_BOT_PLUGINS__TWITTER__OPTIONS", value)
    plugins = make_app(load_settings(root=root)).plugins.all
    assert "options: tables and lists are nested too deep" in plugins["twitter"].off


@pytest.mark.parametrize("name", ["config.toml", "data/config.toml"])
@pytest.mark.parametrize(
    "text", [f"disabled_plugins = {DEEP}", "a" + ".a" * 2000 + " = 1", "[a" + ".a" * 99]
)
def test_file_nested_too_deep_is_named(root: Path, name: str, text: str) -> None:
    (root / name).write_text(f"{text}]\n" if text[0] == "[" else f"{text}\n")
    assert f"{name}: tables and lists are nested too deep" in mistakes(root)


def test_settings_never_show_the_token() -> None:
    settings = Settings(discord_token=SecretStr(TOKEN))
    assert TOKEN not in repr(settings) + str(settings)


# The file that comes with the bot


def test_config_file_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "config.toml").read_text("utf-8")
    table = tomllib.loads(text)
    fields = set(Settings.model_fields) - {"discord_token"}
    assert set(table) == fields
    del table["plugins"]
    assert Settings(**table) == Settings()
    for key in fields - {"plugins"}:
        assert isinstance(table[key], (str, bool, int, float, list)), key


def test_config_file_lists_every_setting_of_a_plugin_with_its_default(
    make_app: MakeApp, settings: Settings
) -> None:
    tables = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))["plugins"]
    shown = {}
    for plugin in make_app(settings).plugins.all.values():
        model = type(plugin.config)
        if plugin.kind == "platforms":  # those are comments: see test_logins.py
            continue
        # Keys of accounts are not for this file; a comment says where they go.
        fields = {
            name
            for name, field in model.model_fields.items()
            if "SecretStr" not in str(field.annotation)
        }
        if fields or plugin.stem in tables:
            shown[plugin.stem] = fields
            assert model(**tables[plugin.stem]) == model(), plugin.stem
    assert {stem: set(table) for stem, table in tables.items()} == shown


def test_importing_the_core_touches_nothing(home: Home) -> None:
    before = sorted(os.listdir(home.path))
    code = "import bossbot, threading; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home.path,
        env=home.environment(BOSS_BOT_MAX_ITEMS="wrong", PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert sorted(os.listdir(home.path)) == before


def test_data_config_with_a_secret_is_closed_to_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "data" / "config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text('[plugins.some]\nauth_token = "0123456789"\n')
    file.chmod(0o644)
    load_settings(root=root)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "set to 0600" in capsys.readouterr().err
