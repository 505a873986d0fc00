"""Who may read which channels, compared with Discord's rules written down once more, in
thousands of made-up cases, and what an answer to them shows."""

import random
import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import discord
import pytest
from bossbot_plugins._archive import Query
from bossbot_plugins._found import jumps, numbered, shown
from bossbot_plugins._prompt import prompt
from bossbot_plugins._readable import channels_for, readable_channels
from bossbot_plugins.archive import _file, _find
from discord import Permissions

from bossbot import Passage

VIEW, HISTORY = Permissions(view_channel=True), Permissions(read_message_history=True)
CONNECT, THREADS = Permissions(connect=True), Permissions(manage_threads=True)
ADMIN = Permissions(administrator=True)
BITS = [one.value for one in (VIEW, HISTORY, CONNECT, THREADS)]
ALL = Permissions.all().value
TEXT, VOICE, CATEGORY, NEWS, STAGE, FORUM = 0, 2, 4, 5, 13, 15
PUBLIC, PRIVATE = 11, 12
GUILD, OWNER, MEMBER, EVERYBODY = 1, 2, 3, 1


@dataclass
class Place:
    id: int
    kind: int
    adult: bool = False
    # By role or member: what is allowed and denied.
    overwrites: dict[int, tuple[int, int]] = field(default_factory=dict)
    parent: "Place | None" = None


@dataclass
class World:
    roles: dict[int, int]  # id to permissions
    places: list[Place]
    asker: int
    asker_roles: list[int]
    timed_out: bool


def some(chance: random.Random, share: float) -> int:
    return sum(bit for bit in BITS if chance.random() < share)


def made_up(chance: random.Random) -> World:
    roles = {EVERYBODY: some(chance, 0.7)}
    for number in (11, 12, 13):
        admin = ADMIN.value if chance.random() < 0.05 else 0
        roles[number] = some(chance, 0.3) | admin
    places = []
    kinds = [TEXT, TEXT, NEWS, VOICE, STAGE, FORUM, CATEGORY]
    for number in range(100, 104):
        place = Place(number, chance.choice(kinds), chance.random() < 0.25)
        for whose in (EVERYBODY, 11, 12, 13, MEMBER):
            if chance.random() < 0.35:
                allowed = some(chance, 0.4)
                place.overwrites[whose] = (allowed, some(chance, 0.4) & ~allowed)
        places.append(place)
    for number in range(200, 202):
        above = [place for place in places if place.kind in (TEXT, NEWS, FORUM)]
        if above:
            parent = chance.choice(above)
            kind = PRIVATE if parent.kind == TEXT and chance.random() < 0.5 else PUBLIC
            places.append(Place(number, kind, parent=parent))
    asker_roles = [n for n in (11, 12, 13) if chance.random() < 0.4]
    asker = OWNER if chance.random() < 0.05 else MEMBER
    return World(roles, places, asker, asker_roles, chance.random() < 0.1)


# ── Discord's rules ────────────────────────────────────────────────────────────────


def allowed(world: World, place: Place, asker: int, roles: list[int]) -> int:
    """See "Permission Hierarchy" in Discord's documentation."""
    own = world.roles[EVERYBODY]
    for role in roles:
        own |= world.roles[role]
    if asker == OWNER or own & ADMIN.value:
        return ALL
    written = (place.parent or place).overwrites
    for group in ([EVERYBODY], roles, [asker]):
        found = [written[one] for one in group if one in written]
        for _, denied in found:
            own &= ~denied
        for granted, _ in found:
            own |= granted
    if world.timed_out and asker == MEMBER:
        own &= VIEW.value | HISTORY.value
    return own


def reads(
    world: World, place: Place, asker: int, roles: list[int], joined: Any
) -> bool:
    may = allowed(world, place, asker, roles)
    needs = VIEW.value | HISTORY.value
    if place.kind in (VOICE, STAGE):
        needs |= CONNECT.value
    if may & needs != needs or place.kind == CATEGORY:
        return False
    inside = place.kind != PRIVATE or place.id in joined
    return bool(inside or may & THREADS.value)


def expected(world: World, here: Place, public: bool, joined: set[int]) -> set[int]:
    """The places whose posts may be in the answer."""
    found = set()
    adult_here = (here.parent or here).adult
    for place in world.places:
        if (place.parent or place).adult and not adult_here:
            continue
        inside = joined | {here.id}
        if not reads(world, place, world.asker, world.asker_roles, inside):
            continue
        near = (here, here.parent) if here.parent else (here,)
        thread_near = place.kind == PUBLIC and place.parent in near
        shown = not public or place in near or thread_near
        if shown or reads(world, place, 0, [], ()):
            found.add(place.id)
    return found


# ── The bot's ──────────────────────────────────────────────────────────────────────


def guild_of(world: World) -> tuple[discord.Guild, discord.Member]:
    state: Any = MagicMock()
    state.self_id = 99
    state.store_user.side_effect = lambda data: discord.User(state=state, data=data)
    payload: Any = {
        "id": str(GUILD),
        "name": "g",
        "owner_id": str(OWNER),
        "roles": [
            {"id": str(n), "name": "r", "permissions": str(value), "position": n}
            for n, value in world.roles.items()
        ],
        "channels": [channel_of(one) for one in world.places if not one.parent],
        "threads": [thread_of(one) for one in world.places if one.parent],
    }
    guild = discord.Guild(data=payload, state=state)
    until = "2999-01-01T00:00:00+00:00" if world.timed_out else None
    data: Any = {
        "user": {
            "id": str(world.asker),
            "username": "m",
            "discriminator": "0",
            "avatar": None,
        },
        "roles": [str(n) for n in world.asker_roles],
        "flags": 0,
        "communication_disabled_until": until,
    }
    return guild, discord.Member(data=data, guild=guild, state=state)


def channel_of(place: Place) -> Any:
    return {
        "id": str(place.id),
        "type": place.kind,
        "name": "c",
        "position": 0,
        "nsfw": place.adult,
        "bitrate": 64000,
        "user_limit": 0,
        "permission_overwrites": [
            {
                "id": str(whose),
                "type": int(whose == MEMBER),
                "allow": str(granted),
                "deny": str(denied),
            }
            for whose, (granted, denied) in place.overwrites.items()
        ],
    }


def thread_of(place: Place) -> Any:
    assert place.parent
    when = "2026-01-01T00:00:00+00:00"
    return {
        "id": str(place.id),
        "guild_id": str(GUILD),
        "parent_id": str(place.parent.id),
        "owner_id": "5",
        "type": place.kind,
        "name": "t",
        "message_count": 0,
        "member_count": 0,
        "thread_metadata": {
            "archived": False,
            "auto_archive_duration": 60,
            "archive_timestamp": when,
        },
    }


def remember(db: sqlite3.Connection, world: World, number: int) -> None:
    """One post in each place of this world, the guild of that number; it says where."""
    for place in world.places:
        message, says = number * 1000 + place.id, f"A fox in w{place.id}w"
        row = _file.PostRow(
            *(f"{message:010x}", number, place.id, 5, 1e9, "", "https://a.example/x"),
            *("image", says, f"w{place.id}w", False, False),
        )
        parent = place.parent.id if place.parent and place.kind == PUBLIC else 0
        at, texts = [(message, place.id)], [Passage(says, "text")]
        _file.add_post(db, row, at, texts, 500, parent)


def answered(db: sqlite3.Connection, number: int, channels: Iterable[int]) -> set[int]:
    """The places that anything in an answer is from: texts, links, what a model gets."""
    asked = _find.ask(db, Query(text="fox", guild_id=number, channels=[*channels]))
    found = enumerate(_find.ranked(db, asked, None), 1)
    hits = numbered(_find.hit_of(asked, one, rank, True, "") for rank, one in found)
    said = [str(shown(rank, hit).to_dict()) for rank, hit in hits.items()]
    said += [str(button.url) for button in jumps(hits)]
    said += [str(prompt("fox", [*hits.values()], 4000))]
    places = re.findall(r"w(\d+)w|<#(\d+)>|/channels/\d+/(\d+)/", " ".join(said))
    return {int(one) for match in places for one in match if one}


@pytest.mark.parametrize("part", range(4))
def test_nobody_reads_what_discord_does_not_show(part: int, tmp_path: Path) -> None:
    chance, db = random.Random(part), _file.open_file(tmp_path / "archive.db")
    for number in range(1, 31):
        world, answers = made_up(chance), dict[frozenset[int], set[int]]()
        remember(db, world, number)
        guild, member = guild_of(world)
        privates = [one.id for one in world.places if one.kind == PRIVATE]
        for _ in range(20):
            here = chance.choice(world.places)
            public = chance.random() < 0.5
            joined = {n for n in privates if chance.random() < 0.5}
            place: Any = guild.get_channel_or_thread(here.id)
            found = readable_channels(
                guild, member, place, public=public, joined=joined
            )
            threads = {
                one.id
                for one in world.places
                if one.kind == PUBLIC and one.parent and one.parent.id in found
            }
            wanted = expected(world, here, public, joined)
            assert {*found} | threads == wanted, (world, here, public, joined)
            if (key := frozenset(found)) not in answers:
                answers[key] = answered(db, number, key)
            assert answers[key] == wanted, (world, here, public, joined)
    db.close()


@pytest.mark.parametrize("status", [404, 500])
async def test_private_threads_are_searched_for_who_has_joined_them(
    status: int,
) -> None:
    text = Place(100, TEXT)
    threads = [Place(number, PRIVATE, parent=text) for number in (200, 201)]
    may = {EVERYBODY: VIEW.value | HISTORY.value}
    guild, member = guild_of(World(may, [text, *threads], MEMBER, [], False))
    answer = MagicMock(status=status, reason="")
    kind = discord.NotFound if status == 404 else discord.DiscordServerError

    async def is_in(thread_id: int, _user_id: int) -> Any:
        if thread_id == 200:
            raise kind(answer, "")
        return {"id": str(thread_id), "user_id": str(MEMBER), "flags": 0} | {
            "join_timestamp": "2026-01-01T00:00:00+00:00"
        }

    state: Any = guild._state
    state.http.get_thread_member = AsyncMock(side_effect=is_in)
    asked = MagicMock(spec=discord.Interaction, guild=guild, user=member)
    asked.channel = guild.get_channel(100)
    assert {*await channels_for(asked)} == {100, 201}
