"""The settings of each server: found by name, given to hooks, stored and read again."""

import asyncio
import os
import re
import stat
import tomllib
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from conftest import AddPlugin, SmallApp, make_job
from pydantic import ByteSize, Field, SecretStr, create_model

from bossbot import App, Guilds, Job, PluginConfig, PluginError, Refused, RoleId

RULE = Path(__file__).parent / "plugins" / "rule.py"


class Mode(StrEnum):
    A = "a"
    B = "b"


class Limits(PluginConfig):
    """Settings as a plugin may have them."""

    per_minute: int = Field(5, ge=0)
    channels: list[int] = Field([])
    size: ByteSize = ByteSize(100)
    note: str | None = None
    most: int | None = 9
    secret: SecretStr = SecretStr("")
    rights: dict[RoleId, str] = Field({})
    mode: Mode = Mode.A
    pair: tuple[str, int] = ("", 0)


Write = Callable[..., Path]


def anew(guilds: Guilds) -> Guilds:
    """The same after a restart."""
    return type(guilds)(guilds.app)


@pytest.fixture
def guilds(small_app: SmallApp) -> Guilds:
    return small_app().guilds


@pytest.fixture
def write(guilds: Guilds) -> Write:
    """Writes a server's file as a person would, later than before."""
    edits = iter(range(1, 100))

    def write(text: str, guild_id: int = 1) -> Path:
        path = guilds.folder / f"{guild_id}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        os.utime(path, (1e9, 1e9 + next(edits)))
        return path

    return write


@pytest.fixture
def app(small_app: SmallApp, add_plugin: AddPlugin) -> App:
    add_plugin(RULE)
    return small_app()


async def intake(app: App, guild_id: int = 1) -> Any:
    return await app.intake(
        Job(
            url="https://a.example/",
            guild_id=guild_id,
            channel_id=2,
            user_id=3,
            request_key=os.urandom(4).hex(),
        )
    )


async def answer(app: App, guild_id: int = 1) -> str:
    return str((await intake(app, guild_id)).answer)


# In the hooks


async def test_guild_config_is_found_by_its_name_and_given_to_the_hook(
    app: App, write: Write
) -> None:
    assert [*app.plugins.all["rule"].guild_config.model_fields] == ["greeting", "loud"]
    assert await answer(app) == "Hello"
    write('[rule]\ngreeting = "Moin"\n\n[other]\nx = 1\n')
    assert await answer(app) == "Moin"
    assert await answer(app, 2) == "Hello", "another server"
    write("[rule]\nloud = true\n", guild_id=0)
    assert await answer(app, 0) == "Hello!", "a direct message"


async def test_hook_gets_the_settings_of_the_time_of_the_request(
    app: App, write: Write
) -> None:
    job = make_job(guild_settings={"rule": {"greeting": "Then"}})
    write('[rule]\ngreeting = "Now"\n')
    assert await app.plugins.call("answer_job", job=job) == ["Then"]


@pytest.mark.parametrize("wrong", [{"greeting": 5}, {"greting": "x"}, 5, [], None])
async def test_wrong_settings_count_as_not_set_where_it_is_no_check(
    app: App, logged: list[str], wrong: Any
) -> None:
    job = make_job(guild_id=7, guild_settings={"rule": wrong})
    assert await app.plugins.call("answer_job", job=job) == ["Hello"]
    assert any(re.search(r"WARNING \S+/7\.toml: \[rule\] ", line) for line in logged)


# Read


def test_file_edited_by_hand_is_picked_up(guilds: Guilds, write: Write) -> None:
    assert guilds.tables(1) == {}
    write("[a]\nx = 1\n")
    assert guilds.tables(1) == {"a": {"x": 1}}
    write("[a]\nx = 2\n")
    assert guilds.tables(1) == {"a": {"x": 2}}
    path = write("\ufeff[a]\nx = 3\n")  # as editors on Windows write it
    assert guilds.tables(1) == {"a": {"x": 3}}
    path.unlink()
    assert guilds.tables(1) == {}


def test_file_is_read_once_while_it_stays_the_same(
    guilds: Guilds, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[a]\nx = 1\n")
    guilds.tables(1)["a"]["x"] = "changed by a caller"
    monkeypatch.delattr(Path, "read_text")
    assert guilds.tables(1) == {"a": {"x": 1}}


def test_file_is_judged_anew_when_a_plugin_has_changed(app: App, write: Write) -> None:
    write("[rule]\npolite = true\n")
    assert app.guilds.tables(1) == {"rule": {"polite": True}}
    assert "polite" in app.guilds.broken[1]
    rule = app.plugins.all["rule"]
    rule.guild_config = create_model(
        "Newer", __base__=rule.guild_config, polite=(bool, False)
    )
    app.plugins.changed()
    assert app.guilds.tables(1) == {"rule": {"polite": True}}
    assert app.guilds.broken == {}


@pytest.mark.parametrize("broken", ["[a\n", "x = ", "[a]\nx = 1\n[a]\n", "\0"])
def test_broken_file_leaves_the_last_good_values(
    guilds: Guilds, write: Write, logged: list[str], broken: str
) -> None:
    write("[a]\nx = 1\n")
    guilds.tables(1)
    path = write(broken)
    assert guilds.tables(1) == {"a": {"x": 1}}
    assert guilds.tables(1) == {"a": {"x": 1}}
    [line] = [line for line in logged if line.startswith("WARNING")]
    assert line.startswith(f"WARNING {path}: ") and guilds.broken[1] in line
    write("[a]\nx = 2\n")
    assert guilds.tables(1) == {"a": {"x": 2}}, "once it is mended"
    assert guilds.broken == {}


@pytest.mark.parametrize("broken", ["[a\n", "folder"])
def test_last_good_values_outlive_a_restart(
    guilds: Guilds, write: Write, broken: str
) -> None:
    path = write("[a]\nx = 1\n")
    guilds.tables(1)
    if broken == "folder":
        path.unlink()
        path.mkdir()
    else:
        write(broken)
    again = anew(guilds)
    assert again.tables(1) == {"a": {"x": 1}}
    assert again.broken.keys() == {1}


async def test_what_was_set_is_the_last_good_state(
    guilds: Guilds, write: Write
) -> None:
    await guilds.set(1, "limits", Limits, "per_minute", 3)
    write("[a\n")
    assert anew(guilds).tables(1) == {"limits": {"per_minute": 3}}


def test_file_that_was_removed_leaves_nothing_to_fall_back_to(
    guilds: Guilds, write: Write
) -> None:
    path = write("[a]\nx = 1\n")
    guilds.tables(1)
    path.unlink()
    assert guilds.tables(1) == {}
    write("[a\n")
    assert anew(guilds).tables(1) == {}


def test_broken_file_is_told_once_and_again_when_it_is_broken_otherwise(
    guilds: Guilds, write: Write
) -> None:
    told: list[tuple[int, str]] = []
    guilds.on_broken = lambda guild_id, why: told.append((guild_id, why))
    for text in ("[a]\nx = 1\n", "[a\n", "[a\n", "x = \n"):
        write(text)
        guilds.tables(1)
        guilds.tables(1)
    assert [number for number, _ in told] == [1, 1]


async def test_wrong_value_breaks_a_file_as_much_as_wrong_toml(
    app: App, write: Write
) -> None:
    write('[rule]\ngreeting = "Moin"\n')
    assert await answer(app) == "Moin"
    write('[rule]\ngreeting = "Hi"\nlaud = true\n')
    assert await answer(app) == "Moin"
    wrong = "[rule] laud: no such setting (did you mean loud?)"
    assert app.guilds.broken == {1: wrong}
    app.plugins.switch_off("rule", PluginError("its tables cannot be made"))
    app.guilds.tables(1)
    assert app.guilds.broken == {1: wrong}, "its check stays on"
    app.plugins.switch_off("rule", "as the test wants")
    write("[rule]\nlaud = true\n")
    app.guilds.tables(1)
    assert app.guilds.broken == {}, "what is off is not looked at"
    await app.reload("rule")
    write('[rule]\ngreeting = "Hi"\nloud = true\n[gone]\nx = 1\n')
    assert await answer(app) == "Hi!"
    assert app.guilds.broken == {}


async def test_broken_file_that_was_never_good_refuses_the_link(
    app: App, write: Write
) -> None:
    write("[rule\n")
    with pytest.raises(Refused, match=r"settings cannot be read.*in the log"):
        await intake(app)
    assert await answer(app, 2) == "Hello", "the other servers go on"


async def test_unreadable_file_refuses_the_link(app: App, write: Write) -> None:
    path = write("")
    path.unlink()
    path.mkdir()
    with pytest.raises(Refused, match="settings cannot be read"):
        await intake(app)


# Stored


async def test_set_stores_one_value_and_returns_all(
    guilds: Guilds, write: Write
) -> None:
    path = write("[other]\nx = 1\n[limits]\nchannels = [7]\n")
    stored = await guilds.set(1, "limits", Limits, "per_minute", 3)
    assert stored == Limits(per_minute=3, channels=[7])
    tables = {"other": {"x": 1}, "limits": {"per_minute": 3, "channels": [7]}}
    assert tomllib.loads(path.read_text("utf-8")) == tables
    assert guilds.tables(1) == tables and guilds.tables(2) == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in guilds.folder.iterdir()} == {"1.toml", "last_good"}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("per_minute", "3", 3),
        ("channels", "[1, 2]", [1, 2]),
        ("size", "20MiB", 20 * 2**20),
        ("note", "café", "café"),
    ],
)
async def test_set_takes_what_a_member_types(
    guilds: Guilds, key: str, text: str, value: Any
) -> None:
    stored = await guilds.set(1, "limits", Limits, key, text)
    assert getattr(stored, key) == value
    assert Limits(**guilds.tables(1)["limits"]) == stored


async def test_what_equals_the_default_is_stored_and_reset_drops_it(
    guilds: Guilds,
) -> None:
    for key, value in (("per_minute", 5), ("note", "x"), ("note", None)):
        await guilds.set(1, "limits", Limits, key, value)
    assert guilds.tables(1) == {"limits": {"per_minute": 5}}
    assert await guilds.reset(1, "limits", Limits, "per_minute") == Limits()
    assert guilds.tables(1) == {"limits": {}}
    assert await guilds.reset(2, "limits", Limits, "per_minute") == Limits()


async def test_nothing_is_refused_where_toml_cannot_say_it(guilds: Guilds) -> None:
    await guilds.set(1, "limits", Limits, "most", 3)
    with pytest.raises(Refused, match="most: this cannot be stored"):
        await guilds.set(1, "limits", Limits, "most", None)
    assert guilds.tables(1) == {"limits": {"most": 3}}


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("secret", "hush", "hush"),
        ("rights", {7: "high", 8: "low"}, {"7": "high", "8": "low"}),
        ("mode", "b", "b"),
        ("pair", ["x", 2], ["x", 2]),
    ],
)
async def test_set_stores_every_kind_of_value_so_that_it_reads_the_same(
    guilds: Guilds, key: str, value: Any, stored: Any
) -> None:
    config = await guilds.set(1, "limits", Limits, key, value)
    assert guilds.tables(1) == {"limits": {key: stored}}
    assert Limits(**guilds.tables(1)["limits"]) == config


async def test_set_leaves_the_other_values_as_they_were_written(
    guilds: Guilds, write: Write
) -> None:
    write('[limits]\nsize = "20MiB"\n')
    await guilds.set(1, "limits", Limits, "per_minute", 3)
    assert guilds.tables(1) == {"limits": {"size": "20MiB", "per_minute": 3}}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("per_minute", "many", "per_minute: Input should be a valid integer"),
        ("per_minute", -1, "per_minute: Input should be greater than or equal to 0"),
        ("per_mintue", 1, "per_mintue: no such setting (did you mean per_minute?)"),
        ("channels", "[1, ", "channels: "),
        ("channels", ["x"], "channels.0: "),
    ],
)
async def test_set_refuses_what_is_wrong_and_stores_nothing(
    guilds: Guilds, write: Write, key: str, value: Any, reason: str
) -> None:
    path = write("[limits]\nper_minute = 3\n")
    with pytest.raises(Refused) as caught:
        await guilds.set(1, "limits", Limits, key, value)
    assert str(caught.value).startswith(reason)
    assert path.read_text() == "[limits]\nper_minute = 3\n"


async def test_set_does_not_overwrite_a_file_that_is_being_edited(
    guilds: Guilds, write: Write
) -> None:
    write("[limits]\nper_minute = 3\n")
    guilds.tables(1)
    path = write("[limits\n")
    with pytest.raises(Refused, match="cannot be read"):
        await guilds.set(1, "limits", Limits, "per_minute", 4)
    assert path.read_text() == "[limits\n"


async def test_set_replaces_what_is_no_table(guilds: Guilds, write: Write) -> None:
    write("limits = 5\n")
    await guilds.set(1, "limits", Limits, "per_minute", 4)
    assert guilds.tables(1) == {"limits": {"per_minute": 4}}


async def test_many_sets_at_once_lose_none(guilds: Guilds) -> None:
    names = [f"plugin{number}" for number in range(20)]
    await asyncio.gather(
        *(guilds.set(1, name, Limits, "per_minute", 1) for name in names)
    )
    assert guilds.tables(1) == {name: {"per_minute": 1} for name in names}


@pytest.mark.parametrize("text", ["a = " + "[" * 9999, "a" + ".a" * 2000 + " = 1"])
def test_file_nested_too_deep_is_a_broken_one(
    guilds: Guilds, write: Write, text: str
) -> None:
    write(text)
    with pytest.raises(Refused, match="cannot be read"):
        guilds.tables(1)


async def test_set_that_cannot_be_written_leaves_the_old_file(
    guilds: Guilds, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[limits]\nper_minute = 3\n")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await guilds.set(1, "limits", Limits, "per_minute", 4)
    assert path.read_text() == "[limits]\nper_minute = 3\n"
    assert guilds.tables(1) == {"limits": {"per_minute": 3}}
    assert {file.name for file in guilds.folder.iterdir()} == {"1.toml", "last_good"}
