"""The settings of a server in Discord: seen, changed, refused, logged, broken by hand."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from discord_support import Stage, link, module
from fake_discord import Message, Role, User

from bossbot import App, BossBot, Settings

pytest_plugins = ("discord_fixtures",)
PLUGINS = Path(__file__).parent / "plugins"
FREE = {
    f"limits__settings_{name}": 0
    for name in (
        "view_per_minute",
        "view_cooldown_s",
        "update_per_minute",
        "update_cooldown_s",
    )
}


class Moderated:
    """A stage whose moderator uses /settings, with a plugin of the owner's."""

    def __init__(self, stage: Stage, moderator: User, role: Role) -> None:
        self.stage, self.fake = stage, stage.fake
        self.moderator, self.role = moderator, role
        self.bot: BossBot

    @property
    def app(self) -> App:
        return self.bot.app

    async def slash(self, name: str, **options: Any) -> Message:
        """The answer to the moderator's command."""
        user_id = options.pop("user_id", self.moderator.id)
        used = await self.fake.slash(self.stage.channel_id, name, options, user_id)
        return await self.fake.answered(used)

    async def update(self, setting: str, value: str, **options: Any) -> str:
        options |= {"setting": setting, "value": value}
        return (await self.slash("settings update", **options)).text

    async def view(self, setting: str = "") -> str:
        options = {"setting": setting} if setting else {}
        return (await self.slash("settings view", **options)).text

    def stored(self, stem: str = "own") -> dict[str, Any]:
        table: dict[str, Any] = self.app.guilds.tables(self.fake.guild.id).get(stem, {})
        return table

    @property
    def file(self) -> Path:
        return self.app.guilds.folder / f"{self.fake.guild.id}.toml"

    def edit(self, text: str) -> None:
        """Writes the file as a person would."""
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text, "utf-8")
        stat = self.file.stat()
        os.utime(self.file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))

    def audit(self) -> list[dict[str, Any]]:
        path = self.stage.folder / "data" / "logs" / "audit.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


@pytest.fixture
async def prepared(stage: Stage) -> Moderated:
    """Before the bot runs, with no settings yet."""
    shutil.rmtree(stage.folder / "data")
    for name in (
        "settings",
        "adult",
        "auto_links",
        "quota",
        "request",
        "limits",
        "language",
        "reddit",
        "youtube",
        "archive",
        "ask",
        "describe_files",
        "similar_notice",
    ):
        stage.add_plugin(name)
    shutil.copy(PLUGINS / "own.py", stage.plugins)
    moderator = await stage.fake.add_moderator("moe", "manage_guild")
    role = await stage.fake.add_role("Movie Night, Crew")
    return Moderated(stage, moderator, role)


@pytest.fixture
async def room(prepared: Moderated) -> AsyncIterator[Moderated]:
    async with prepared.stage.bot(**FREE) as bot:
        prepared.bot = bot
        yield prepared


# Their names


def test_names_of_our_settings_are_unique(tmp_path: Path) -> None:
    app = App(Settings(plugins_dir=tmp_path, data_dir=tmp_path))
    app.plugins.load()
    names = [n for p in app.plugins.all.values() for n in p.guild_config.model_fields]
    assert len(names) == len({*names})
    assert [*module("settings").settings_of(app)] == names
    assert all(
        field.description
        for plugin in app.plugins.all.values()
        for field in plugin.guild_config.model_fields.values()
    )


async def test_setting_of_an_owner_s_plugin_has_a_longer_name_where_ours_has_it(
    room: Moderated,
) -> None:
    known = module("settings").settings_of(room.app)
    assert known["platforms"].plugin.stem == "permissions"
    assert known["own.platforms"].plugin.stem == "own"
    assert known["count"].plugin.stem == "own"
    await room.update("own.platforms", "x")
    assert room.stored() == {"platforms": "x"}


# Every kind of value


async def test_values_are_read_and_stored(room: Moderated) -> None:
    fake, role = room.fake, room.role
    other = await fake.add_role("Owls")
    friend = fake.add_member("frieda")
    thread = await fake.add_thread(room.stage.channel_id, "news")
    channel = room.stage.channel_id
    for setting, value, stored in [
        ("count", "4", 4),
        ("COUNT", " 0 ", 0),
        ("ratio", "1.5", 1.5),
        ("ratio", "2", 2.0),
        ("loud", "Yes", True),
        ("loud", "off", False),
        ("size", "20MiB", 20 * 2**20),
        ("size", "1.5 GiB", int(1.5 * 2**30)),
        ("size", "1048577", 2**20 + 1),
        ("size", "7b", 7),
        ("size", "0", 0),
        ("size:", "“1 MiB”", 2**20),
        ("mode", "BEE", "bee"),
        ("choice", "2", 2),
        ("choice", "One", "one"),
        ("greeting", "hi, x", "hi, x"),
        ("fan", f"<@&{role.id}>", role.id),
        ("fan", f"{other.id}", other.id),
        ("fan", "@Owls", other.id),
        ("fan", "movie night, crew", role.id),
        ("place", "#general", channel),
        ("place", "general", channel),
        ("place", f"<#{thread.id}>", thread.id),
        (
            "friends",
            f"<@{friend.id}> <@!{fake.member.id}>",
            [friend.id, fake.member.id],
        ),
        ("friends", "frieda, 123456789012345678", [friend.id, 123456789012345678]),
        ("friends", "@Mary,mary,", [fake.member.id]),
        ("sites", "Reddit, youtube", ["reddit", "youtube"]),
        ("modes", "a,bee, a", ["a", "bee"]),
        ("sites", "all", []),  # as /settings view shows it
        ("friends", "None", []),
        ("role_priority", "none", {}),
        ("download_roles", f"<@&{role.id}><@&{other.id}>", [role.id, other.id]),
        ("download_roles", "Owls, Movie Night, Crew", [other.id, role.id]),
        ("download_roles", f"{role.id} {other.id}", [role.id, other.id]),
        ("ranks", "@Movie Night, Crew high", {f"{role.id}": "high"}),
        (
            "ranks",
            f"<@&{other.id}> low",
            {f"{role.id}": "high", f"{other.id}": "low"},
        ),
        ("ranks", "@Owls default", {f"{role.id}": "high"}),
        ("rules", "#general bee, #news a", {f"{channel}": "bee", f"{thread.id}": "a"}),
        ("role_priority", "Owls HIGH", {f"{other.id}": "high"}),
        ("auto_links", "react", {"0": "react"}),
        ("auto_links", "#general ON", {"0": "react", f"{channel}": "on"}),
        (
            "auto_links",
            f"off, <#{thread.id}> react",
            {"0": "off", f"{channel}": "on", f"{thread.id}": "react"},
        ),
        (
            "auto_links",
            "#general default, #news default, react",
            {"0": "react"},
        ),
        ("rate_per_minute", "0", 0),
        ("language", "pt-br", "pt-BR"),  # in which the next one would be answered
    ]:
        said = await room.update(setting, value)
        known = module("settings").settings_of(room.app)[setting.lower().strip(":")]
        table = room.stored(known.plugin.stem)
        assert table[known.key] == stored, (setting, value, said)
        assert said.startswith((f"`{known.name}` is now", f"[{known.name}]")), said


WRONG = {
    "count": ["many", "-1", "10", "1.5", "", " ", "1e3", "٣", "9" * 40, "nan", "1,2"],
    "ratio": ["0", "-1", "nan", "inf", "half", "1,5"],
    "loud": ["maybe", "2", ""],
    "size": ["big", "-5MiB", "20 MiBs", "1 2", "20MiB!", "", "10", "9" * 40],
    "mode": ["c", "A bee"],
    "choice": ["three", "1"],
    "greeting": ["longer than five"],
    "fan": ["Owlz", "<@&1>", "<@123456789012345678>", "123456789012345678", "", ","],
    "place": ["#nowhere", "<#123456789012345678>", "<@&123456789012345678>", ""],
    "friends": ["nobody", "<#123456789012345678>", "mary, nobody", "", "9" * 20],
    "sites": ["redit", "youtube reddit"],
    "ranks": ["@Owls", "@Owls medium", "high", "", "@Nobody high"],
    "rules": ["#general x", "general"],
    "most": ["8", "-1"],
    "largest": ["51MiB"],
    # Ours
    "download_roles": ["nobody"],
    "stats_roles": ["nobody"],
    "search_roles": ["nobody"],
    "queue_roles": ["nobody"],
    "settings_roles": ["nobody"],
    "allowed_channels": ["nowhere"],
    "denied_channels": ["nowhere"],
    "denied_users": ["nobody"],
    "platforms": ["tiktok", "every"],
    "role_priority": ["Owls", "Owls urgent", "Nobody high"],
    "language": ["tlh", "english"],
    "rate_per_minute": ["-1", "lots", "1001", "2.5"],
    "cooldown_s": ["-1", "10 s", "86401"],
    "quality": ["4k", "720 p"],
    "archive": ["maybe"],
    "ask_model": ["maybe"],
    "similar_notice": ["maybe"],
    "describe_files": ["maybe"],
    "spoiler": ["maybe"],
    "adult": ["never", "yes"],
    "status_when_done": ["gone", "yes"],
    "delete_request": ["later"],
    "suppress_preview": ["later"],
    "max_file_size": ["big", "51MiB", "0"],
    "thread_above": ["-1", "many", "1.5"],
    "daily_quota": ["big", "501MiB", "0", "-1"],
    "auto_links": [
        "maybe",
        "yes",
        "none",
        "#general",
        "#general yes",
        "#nowhere on",
        "0 on",
    ],
}


async def test_wrong_values_are_refused_with_what_is_allowed(room: Moderated) -> None:
    await room.fake.add_role("Owls")
    for setting, values in WRONG.items():
        takes = await room.view(setting)
        assert "Possible values" in takes
        for value in values:
            if not value:  # Discord itself asks for one
                continue
            said = await room.update(setting, value)
            refused = "is not valid" in said or "The bot's owner does not allow" in said
            assert f"`{setting}`" in said and refused, (setting, value, said)
    assert not room.file.exists() and room.audit() == []


def test_every_setting_of_ours_is_tried_with_wrong_values(tmp_path: Path) -> None:
    app = App(Settings(plugins_dir=tmp_path, data_dir=tmp_path))
    app.plugins.load()
    kinds = {
        name: setting.kind
        for name, setting in module("settings").settings_of(app).items()
    }
    free = {name for name, kind in kinds.items() if kind.type is str and not kind.what}
    assert kinds.keys() - free <= WRONG.keys()


REFUSALS = [
    ("count", "many", "a whole number from 0 to 9; or default"),
    ("ratio", "x", "a number from 0"),
    ("size", "x", "a size such as 20MiB"),
    (
        "mode",
        "beee",
        "“beee” (did you mean bee?) is not valid. `mode` can be a, bee",
    ),
    ("sites", "redit", "(did you mean reddit?) is not valid"),
    ("fan", "Movie Nite, Crew", "did you mean Movie Night, Crew?"),
    ("language", "d", "auto, en, de, es, fr, ja, pt-BR; or default"),
    ("ranks", "x y", "a role (mention, id or name) and then low, high; several"),
    (
        "auto_links",
        "of",
        "(did you mean off?) is not valid. `auto_links` can be off",
    ),
    ("auto_links", "x", "; or a channel (mention, id or name) and then off, react"),
    ("most", "8", "The bot's owner does not allow 8 for `most`. The limit is 7"),
    ("largest", "1GiB", "The bot's owner does not allow 1 GiB"),
    ("daily_quota", "0", "The bot's owner does not allow 0 (∞)"),
    ("cuont", "1", "no setting “cuont” (did you mean count?)"),
]


async def test_refusal_says_what_is_allowed_and_what_may_be_meant(
    room: Moderated,
) -> None:
    said = [await room.update(setting, value) for setting, value, _ in REFUSALS]
    for answer, (*_, told) in zip(said, REFUSALS, strict=True):
        assert told in answer
    for _number in range(2):
        await room.fake.add_role("Twins")
    several = await room.update("fan", "Twins")
    assert several == "There are several named “Twins”. Use a mention or an id."
    assert (
        await room.update("download_roles", "x," * 51) == "That is more than 50 values."
    )

    # A channel that the moderator cannot see is unknown.
    hidden = room.fake._new_channel("hidden", guild=room.fake.guild)
    await room.fake._emit("CHANNEL_CREATE", hidden.payload())
    await room.fake.deny(hidden.id, "view_channel")
    assert "is not valid" in await room.update("place", "#hidden")
    shown = await room.fake.autocomplete(
        room.stage.channel_id,
        "settings update",
        "value",
        "hid",
        {"setting": "place"},
        room.moderator.id,
    )
    assert shown == []


async def test_words_that_are_shown_are_taken_in_each_language(
    room: Moderated,
) -> None:
    await room.fake.add_role("keine")
    for language, yes, none in (("de", "ja", "keine"), ("fr", "oui", "aucun")):
        await room.update("language", language)
        await room.update("loud", "off")
        assert yes in await room.update("loud", yes)
        assert room.stored()["loud"] is True
        await room.update("friends", f"<@{room.moderator.id}>")
        assert none in await room.update("friends", none)
        assert room.stored()["friends"] == []
    await room.update("language", "de")
    await room.update("download_roles", "keine")  # the role of that name
    assert len(room.stored("permissions")["download_roles"]) == 1


async def test_default_resets_and_a_setting_counts_at_once(room: Moderated) -> None:
    await room.update("count", "4")
    await room.update("loud", "yes")
    said = await room.update("count", "Default")
    assert "`count` is back to its default: 3 (before: 4)" in said
    assert room.stored() == {"loud": True}
    assert "(before: 3)" in await room.update("count", "default")
    await room.update("denied_users", f"<@{room.fake.member.id}>")
    await room.stage.says(f"$download {link(room.stage.image())}")
    await room.stage.hears("You may not use this bot")


# What is shown


async def test_view_says_value_default_and_where_it_comes_from(
    prepared: Moderated,
) -> None:
    own = {"own__most": 5, "own__largest": "50MiB", "limits__download_per_minute": 5}
    async with prepared.stage.bot(**FREE, **own) as bot:
        prepared.bot = bot
        await prepared.update("count", "4")
        text = await prepared.view()
        for line in (
            "`count` 4 · this server (default: 3)",
            "`most` 5 · the bot's owner",
            "`largest` 50 MiB · default",
            "`rate_per_minute` 5 · default",
            "`download_roles` none · default",
            "`loud` no · default",
            "`size` 1 MiB · default",
        ):
            assert line in text
        one = await prepared.view("count")
        assert "a count" in one and "from 0 to 9" in one and "this server" in one


async def test_view_shows_mentions_and_no_more_than_discord_takes(
    room: Moderated,
) -> None:
    ids = [10**17 + n for n in range(500)]
    table = "[permissions]\n" + "".join(
        f"{name} = {ids}\n"
        for name in ("denied_users", "allowed_channels", "download_roles")
    )
    room.edit(f"{table}[own]\nfriends = {ids}\n")
    text = await room.view()
    assert f"<@{ids[0]}>" in text and f"<#{ids[0]}>" in text and f"<@&{ids[0]}>" in text
    assert "490 more" in text
    assert "490 more" in await room.view("denied_users")


async def test_answers_are_for_who_asked_and_a_secret_is_neither_shown_nor_logged(
    room: Moderated,
) -> None:
    assert "hush" not in await room.update("secret", "hush")
    assert "hush" not in await room.view() + await room.view("secret")
    assert room.stored() == {"secret": "hush"}
    assert "hush" not in json.dumps(room.audit())
    assert (await room.slash("settings view")).only_for is room.moderator
    answer = await room.slash("settings update", setting="count", value="4")
    assert answer.only_for is room.moderator
    answer = await room.slash("settings update", setting="count", value="x")
    assert answer.only_for is room.moderator


async def test_prefix_commands_do_the_same(room: Moderated) -> None:
    stage, user_id = room.stage, room.moderator.id

    async def says(text: str, told: str) -> None:
        asked = await stage.fake.member_says(stage.channel_id, text, user_id)
        await stage.hears(told, after=asked.id)

    await says("$settings update count 4", "`count` is now 4 (before: 3)")
    await says("$settings update friends mary, moe", f"<@{stage.fake.member.id}>")
    await says("$settings", "`count` 4 · this server")
    await says("$settings view", "`count` 4 · this server")
    await says("$settings view count", "a count")
    await says("$dls", "`count` 4 · this server")
    await says("$dls count", "a count")
    await says("$Settings View count", "a count")
    await says("$settings count 5", "Did you mean `$settings update count 5`?")
    await says("$settings update count x", "is not valid")
    assert room.stored()["count"] == 4


async def test_autocomplete_knows_names_and_values(room: Moderated) -> None:
    async def asks(option: str, typed: str, setting: str = "") -> list[Any]:
        given = {"setting": setting} if setting else {}
        found = await room.fake.autocomplete(
            room.stage.channel_id,
            "settings update",
            option,
            typed,
            given,
            room.moderator.id,
        )
        return [one["value"] for one in found]

    assert await asks("setting", "cou") == ["count"]
    assert "download_roles" in await asks("setting", "roles")
    assert len(await asks("setting", "")) == 25
    assert await asks("value", "", "loud") == ["yes", "no", "default"]
    assert await asks("value", "b", "mode") == ["bee"]
    assert await asks("value", "red", "platforms") == ["reddit"]
    assert await asks("value", "youtube, red", "platforms") == ["youtube, reddit"]
    assert await asks("value", "movie", "download_roles") == ["@Movie Night, Crew"]
    assert await asks("value", "gen", "allowed_channels") == ["#general"]
    assert await asks("value", "@Movie Night, Crew h", "role_priority") == [
        "@Movie Night, Crew high"
    ]
    assert await asks("value", "", "auto_links") == [
        *("off", "react", "on", "#general", "default")
    ]
    assert await asks("value", "#general ", "auto_links") == [
        f"#general {mode}" for mode in ("off", "react", "on")
    ]
    assert await asks("value", "off, #general re", "auto_links") == [
        "off, #general react"
    ]
    assert await asks("value", "x", "nothing") == []
    member = await room.fake.autocomplete(
        room.stage.channel_id, "settings update", "value", "", {"setting": "fan"}
    )
    assert member == [], "who may not change it"


# Who may


async def test_only_who_may_manage_the_server_changes_settings(room: Moderated) -> None:
    fake = room.fake
    assert "Manage Server" in await room.update("count", "4", user_id=fake.member.id)
    assert (
        "`count` 3" in (await room.slash("settings view", user_id=fake.member.id)).text
    )
    other = await fake.add_guild("Other")
    assert other.guild
    stranger = await fake.add_moderator("sam", "manage_guild", guild=other.guild)
    assert "Manage Server" in await room.update("count", "4", user_id=stranger.id)
    assert not room.file.exists()
    await room.update("settings_roles", "Movie Night, Crew")
    fake.give_role(fake.member, room.role)
    assert "is now 4" in await room.update("count", "4", user_id=fake.member.id)
    assert "is now 5" in await room.update("count", "5", user_id=fake.owner.id)


async def test_settings_of_one_server_are_not_those_of_another(room: Moderated) -> None:
    fake = room.fake
    other = await fake.add_guild("Other")
    assert other.guild
    stranger = await fake.add_moderator("sam", "manage_guild", guild=other.guild)
    await room.update("count", "4")
    used = await fake.slash(
        other.id, "settings update", {"setting": "count", "value": "7"}, stranger.id
    )
    assert "(before: 3)" in (await fake.answered(used)).text
    assert "`count` 4" in await room.view()
    used = await fake.slash(
        other.id,
        "settings update",
        {"setting": "fan", "value": f"{room.role.id}"},
        stranger.id,
    )
    assert "is not valid" in (await fake.answered(used)).text, "a role of elsewhere"


# The audit log


async def test_every_change_is_in_the_audit_log(room: Moderated) -> None:
    await room.update("count", "4")
    await room.update("friends", "mary")
    await room.update("count", "default")
    await room.update("count", "default")
    await room.update("count", "x")
    lines = room.audit()
    assert [{k: v for k, v in line.items() if k != "time"} for line in lines] == [
        {"guild": guild, "who": who, "what": what, "from": before, "to": after}
        for guild, who in [(room.fake.guild.id, room.moderator.id)]
        for what, before, after in [
            ("count", None, 4),
            ("friends", None, [room.fake.member.id]),
            ("count", 4, None),
        ]
    ]
    assert all(line["time"].endswith("+00:00") for line in lines)


async def test_audit_log_is_bounded_private_and_outlives_a_torn_line(
    room: Moderated, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = room.stage.folder / "data" / "logs" / "audit.jsonl"
    await room.update("count", "4")
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:
        file.write('{"torn')
    await room.update("count", "5")
    assert json.loads(path.read_text().splitlines()[-1])["to"] == 5
    monkeypatch.setattr(module("_audit"), "MAX_BYTES", 100)
    for number in (6, 7, 8):
        await room.update("count", f"{number}")
    kept = [file.name for file in sorted(path.parent.glob("audit*"))]
    assert kept == ["audit.1.jsonl", "audit.jsonl"]
    assert len(path.read_text().splitlines()) == 1
    await module("_audit").forget(room.app, room.moderator.id)
    for name in kept:
        assert json.loads(path.with_name(name).read_text())["who"] == 0


async def test_audit_log_forgets_a_member_and_keeps_the_fact(room: Moderated) -> None:
    owner_id, log = room.fake.owner.id, module("_audit")
    await room.update("count", "4")
    await room.update("count", "5", user_id=owner_id)
    path = room.stage.folder / "data" / "logs" / "audit.jsonl"
    with path.open("a") as file:
        file.write("torn\n")
    await log.forget(room.app, room.moderator.id, guild_id=99)
    assert f"{room.moderator.id}" in path.read_text()
    await log.forget(room.app, room.moderator.id)
    first, second, torn = path.read_text().splitlines()
    facts = json.loads(first)
    assert (facts["who"], facts["what"], facts["to"]) == (0, "count", 4)
    assert json.loads(second)["who"] == owner_id and torn == "torn"


async def test_change_that_cannot_be_logged_is_not_made(
    room: Moderated, monkeypatch: pytest.MonkeyPatch
) -> None:
    (room.stage.folder / "data" / "logs" / "audit.jsonl").mkdir()
    said = await room.update("count", "4")
    assert "is now" not in said and not room.file.exists()


# Edited and broken by hand


async def test_broken_file_is_reported_and_not_overwritten(
    prepared: Moderated,
) -> None:
    fake = prepared.fake
    inbox = fake.open_dm(fake.owner.id)

    def told() -> list[Message]:
        return [m for m in fake.messages(inbox.id) if "cannot be used" in m.text]

    async with prepared.stage.bot(**FREE) as bot:
        prepared.bot = bot
        await prepared.update("count", "4")
        await prepared.update("denied_users", f"<@{fake.member.id}>")
        for broken in ("own = 1\n", "[own]\ncount = 80\n", "[own]\ncount = \n"):
            prepared.edit(broken)
            text = await prepared.view()
            assert "`count` 4 · this server" in text and "is broken" in text, broken
            assert "\\" not in text  # a footer has no mark-up
            assert "is broken" in await prepared.update("count", "5"), broken
            assert prepared.file.read_text() == broken
        await fake.wait_for(lambda: len(told()) == 3)
        assert f"{fake.guild.id}.toml" in told()[0].text.replace("\\", "")
    async with prepared.stage.bot(**FREE) as bot:
        prepared.bot = bot
        assert "`count` 4 · this server" in await prepared.view()
        await prepared.stage.says("$download https://a.example/")
        await prepared.stage.hears("You may not use this bot")
        assert "is broken" in await prepared.update("count", "5")
        await fake.settle()
        assert len(told()) == 3, "once, not at each start"
        prepared.edit("[own]\ncount = 6\n")  # counts without a restart
        assert "`count` 6 · this server" in await prepared.view()
        assert "is broken" not in await prepared.view()
        assert "(before: 6)" in await prepared.update("count", "5")
        await prepared.update("loud", "yes")
        assert prepared.stored() == {"count": 5, "loud": True}


async def test_help_has_examples_of_the_settings(room: Moderated) -> None:
    shutil.copy(ROOT / "plugins" / "chat" / "help.py", room.stage.plugins)
    await room.app.reload("help")
    asked = await room.fake.member_says(
        room.stage.channel_id, "$help settings update", room.moderator.id
    )
    await room.stage.hears("$settings update language de", after=asked.id)
