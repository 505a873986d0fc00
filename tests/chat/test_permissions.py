"""Who may do what: one check for commands, buttons and menus."""

from types import SimpleNamespace
from typing import Any

import discord
import pytest
from bossbot_plugins._commands import action_name, check, permission_title
from conftest import ROOT, MakeApp, MakeSettings, SmallApp, make_job
from discord.ext import commands
from discord_support import Stage, link

from bossbot import Action, App, Priority, Refused

pytest_plugins = ("discord_fixtures",)

ROLE, OTHER_ROLE, CHANNEL, OTHER_CHANNEL, MEMBER = 11, 12, 21, 22, 31


@pytest.fixture
def app(small_app: SmallApp) -> App:
    app = small_app("permissions")
    app.plugins.load()
    return app


def action(
    group: str = "download",
    *permissions: str,
    roles: tuple[int, ...] = (),
    thread_in: int = 0,
    needs: tuple[str, ...] = ("send_messages",),
    owner: bool = False,
    **guild: Any,
) -> Action:
    """A member's, who may send messages and what is named."""
    granted = dict.fromkeys(("send_messages", *permissions), True)
    return Action(
        name=group,
        group=group,
        guild_id=1,
        channel=SimpleNamespace(id=CHANNEL, parent_id=thread_in or None),
        user=SimpleNamespace(id=MEMBER, roles=[SimpleNamespace(id=r) for r in roles]),
        permissions=discord.Permissions(**granted),
        needs=needs,
        owner=owner,
        guild_settings={"permissions": guild},
    )


MAY = [
    action(),
    action(roles=(ROLE,), download_roles=[ROLE, OTHER_ROLE]),
    action("download", "manage_messages", download_roles=[ROLE]),
    action("download", "manage_guild", denied_channels=[CHANNEL]),
    action(allowed_channels=[CHANNEL]),
    action(allowed_channels=[OTHER_CHANNEL], thread_in=OTHER_CHANNEL),
    action(denied_channels=[OTHER_CHANNEL]),
    action("stats", roles=(ROLE,), stats_roles=[ROLE]),
    action("search", roles=(ROLE,), search_roles=[ROLE]),
    action("queue", "manage_messages", needs=("manage_messages",)),
    action("queue", roles=(ROLE,), queue_roles=[ROLE], needs=("manage_messages",)),
    action("settings", "manage_guild", needs=("manage_guild",)),
    action("settings", roles=(ROLE,), settings_roles=[ROLE], needs=("manage_guild",)),
    action("owner", owner=True),
    action(owner=True, denied_users=[MEMBER]),
    action("privacy", needs=(), denied_users=[MEMBER]),
    action("queue", owner=True, needs=("manage_messages",)),
]
MAY_NOT = [
    ("need Attach Files", action(needs=("send_messages", "attach_files"))),
    (f"roles <@&{ROLE}>", action(download_roles=[ROLE])),
    (f"roles <@&{ROLE}>", action("stats", roles=(OTHER_ROLE,), stats_roles=[ROLE])),
    (f"roles <@&{ROLE}>", action("search", search_roles=[ROLE])),
    ("may not use this bot on", action(denied_users=[MEMBER])),
    (
        "may not use this bot on",
        action("queue", "manage_messages", denied_users=[MEMBER]),
    ),
    (
        "may not use this bot on",
        action("privacy", "manage_messages", denied_users=[MEMBER]),
    ),
    ("in this channel", action(denied_channels=[CHANNEL])),
    (
        "in this channel",
        action(denied_channels=[OTHER_CHANNEL], thread_in=OTHER_CHANNEL),
    ),
    (f"Go to <#{OTHER_CHANNEL}>", action(allowed_channels=[OTHER_CHANNEL])),
    ("need Manage Messages", action("queue", needs=("manage_messages",))),
    (
        "need Manage Messages",
        action(
            "queue", roles=(OTHER_ROLE,), queue_roles=[ROLE], needs=("manage_messages",)
        ),
    ),
    (
        "need Manage Server",
        action("settings", "manage_messages", needs=("manage_guild",)),
    ),
    # The roles of one group are not those of another.
    (
        "need Manage Server",
        action("settings", roles=(ROLE,), queue_roles=[ROLE], needs=("manage_guild",)),
    ),
    ("Only the bot's owner", action("owner", "administrator", "manage_guild")),
    ("settings cannot be read", action(download_roles=["everyone"])),
    ("settings cannot be read", action(denied_users="all")),
]


@pytest.mark.parametrize("allowed", MAY)
async def test_check_action_lets_who_may(app: App, allowed: Action) -> None:
    await check(app, allowed)


@pytest.mark.parametrize(("why", "refused"), MAY_NOT)
async def test_check_action_refuses_who_may_not(
    app: App, why: str, refused: Action
) -> None:
    with pytest.raises(Refused, match=why):
        await check(app, refused)


@pytest.mark.parametrize(
    ("roles", "priority"),
    [
        ((), Priority.NORMAL),
        ((ROLE,), Priority.HIGH),
        ((OTHER_ROLE,), Priority.LOW),
        ((OTHER_ROLE, ROLE), Priority.HIGH),
        ((13,), Priority.NORMAL),
    ],
)
async def test_role_priority_is_that_of_the_highest_role(
    app: App, roles: tuple[int, ...], priority: Priority
) -> None:
    asked = action(
        roles=roles, role_priority={f"{ROLE}": "high", f"{OTHER_ROLE}": "low"}
    )
    await check(app, asked)
    assert asked.priority is priority


async def test_links_have_the_priority_of_the_member_s_role(stage: Stage) -> None:
    fake, url = stage.fake, link(stage.image())
    role = await fake.add_role("VIP")
    fake.give_role(fake.member, role)
    async with stage.bot() as bot:
        model: Any = bot.app.plugins.all["permissions"].guild_config
        await bot.app.guilds.set(
            fake.guild.id, "permissions", model, "role_priority", {role.id: "high"}
        )
        await stage.says(f"$download {url}")
        await fake.slash(stage.channel_id, "download", {"url": url})
        await stage.gets(2)
        jobs = await bot.app.queue.list()
        assert [job.priority for job in jobs] == [Priority.HIGH] * 2


async def test_nobody_may_anything_without_the_plugin(app: App) -> None:
    app.plugins.switch_off("permissions", "as the test wants")
    with pytest.raises(Refused, match="the plugin permissions is off"):
        await check(app, action(owner=True))


async def test_every_command_of_ours_asks_whether_its_member_may(
    make_settings: MakeSettings, make_app: MakeApp
) -> None:
    app = make_app(make_settings(), ROOT / "plugins")
    found: dict[str, str] = {}
    for impl in app.plugins.impls("register_commands"):
        plugin = app.plugins.all[impl.plugin_name]
        for cog in app.plugins.invoke(impl, plugin, bot=app.bot):
            if isinstance(cog, commands.Cog):
                every = cog.walk_commands()
                found |= {one.qualified_name: action_name(one) for one in every}
    same = {"queue": "queue list", "dlq": "queue list", "dlc": "queue cancel"}
    same |= {"privacy": "privacy show", "dlh": "help", "plugins": "plugins list"}
    same |= {"settings": "settings view", "dls": "settings view"}
    same |= {"archive": "archive status"}
    assert found == {name: same.get(name, name) for name in found}
    assert {"download", *same, *same.values()} <= {*found}


@pytest.mark.parametrize(("platform", "passes"), [("reddit", True), ("", False)])
async def test_check_job_keeps_to_the_platforms_of_the_server(
    app: App, platform: str, passes: bool
) -> None:
    settings = {"permissions": {"platforms": ["reddit", "youtube"]}}
    job = make_job(platform=platform, guild_settings=settings)
    if passes:
        await app.plugins.call("check_job", job=job)
        return
    with pytest.raises(Refused, match="only downloads from reddit, youtube"):
        await app.plugins.call("check_job", job=job)


def test_permissions_have_the_names_that_discord_shows() -> None:
    assert permission_title("manage_guild") == "Manage Server"
    name = permission_title("send_messages_in_threads")
    assert name == "Send Messages in Threads"


@pytest.mark.parametrize("door", ["$", "/"])
async def test_command_is_refused_by_the_server_s_rule(stage: Stage, door: str) -> None:
    fake = stage.fake
    stage.guild_settings(f"[permissions]\ndenied_users = [{fake.member.id}]\n")
    async with stage.bot() as bot:
        if door == "$":
            await stage.says(f"$download {link(stage.image())}")
        else:
            options = {"url": link(stage.image())}
            await fake.slash(stage.channel_id, "download", options)
        await stage.hears("You may not use this bot on this server.")
        assert await bot.app.queue.list() == []
