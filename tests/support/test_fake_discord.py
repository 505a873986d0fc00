"""The fake Discord, tried with the real discord.py over real sockets."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import discord
import pytest
from discord.ext import commands
from fake_discord import MIB, FakeDiscord, Message

TESTS = Path(__file__).parent

BOT_SCRIPT = """
import sys
import discord
from discord.ext import commands

intents = discord.Intents.default()
intents.message_content = True
bot = commands.Bot("$", intents=intents, guild_ready_timeout=0.1)

@bot.command()
async def where(ctx):
    await ctx.send("|".join([__file__, sys.path[0], *sys.argv]))

if __name__ == "__main__":
    bot.run(sys.argv[1], log_handler=None)
"""


@discord.app_commands.context_menu(name="repeat")
async def repeat(
    interaction: discord.Interaction[commands.Bot], message: discord.Message
) -> None:
    await interaction.response.send_message(message.content, ephemeral=True)


class Things(commands.Cog):
    """A hybrid group: of its commands, one has choices and one has buttons."""

    @commands.hybrid_group()
    async def thing(self, ctx: commands.Context[Any]) -> None:
        """Do something with things."""

    @thing.command()
    async def find(
        self, ctx: commands.Context[Any], name: str, number: int = 1
    ) -> None:
        """Find a thing."""
        await ctx.send(f"{name} {number}", ephemeral=True)

    @find.autocomplete("name")
    async def names(
        self, interaction: discord.Interaction[commands.Bot], typed: str
    ) -> list[discord.app_commands.Choice[str]]:
        names = [f"{typed}{number}" for number in range(interaction.namespace.number)]
        return [discord.app_commands.Choice(name=n, value=n) for n in names]

    @thing.command()
    async def who(
        self,
        ctx: commands.Context[Any],
        member: discord.Member,
        role: discord.Role,
        channel: discord.TextChannel,
    ) -> None:
        """Say who and where."""
        roles = [one.name for one in member.roles]
        await ctx.send(" ".join([member.name, *roles, role.name, channel.name]))

    @thing.command()
    async def press(self, ctx: commands.Context[Any], late_s: float = 0.0) -> None:
        """Show buttons."""
        if late_s:
            await asyncio.sleep(late_s)
        await ctx.send("press", view=Buttons(), ephemeral=True)


class Buttons(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(discord.ui.Button(label="idle", custom_id="idle", disabled=True))

    @discord.ui.button(label="change")
    async def change(
        self, interaction: discord.Interaction, button: discord.ui.Button[Any]
    ) -> None:
        await interaction.response.edit_message(content="changed", view=None)

    @discord.ui.button(label="later")
    async def later(
        self, interaction: discord.Interaction, button: discord.ui.Button[Any]
    ) -> None:
        await interaction.response.defer()
        await interaction.edit_original_response(content="changed later")
        await interaction.followup.send("and more", ephemeral=True)

    @discord.ui.button(label="answer")
    async def answer(
        self, interaction: discord.Interaction, button: discord.ui.Button[Any]
    ) -> None:
        await interaction.response.send_message(f"{interaction.user.name} pressed")

    @discord.ui.select(
        options=[discord.SelectOption(label=name) for name in ("one", "two")],
        custom_id="which",
        row=1,
    )
    async def which(
        self, interaction: discord.Interaction, select: discord.ui.Select[Any]
    ) -> None:
        await interaction.response.send_message(select.values[0])


class Bot(commands.Bot):
    """A bot with a prefix command, slash commands and a context menu."""

    def __init__(self, **options: Any) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__("$", intents=intents, guild_ready_timeout=0.1, **options)
        self.heard: list[str] = []

    async def before_identify_hook(
        self, shard_id: int | None, *, initial: bool = False
    ) -> None:
        """Skips the 5 s that discord.py sleeps before it identifies again."""

    async def setup_hook(self) -> None:
        @self.command()
        async def ping(ctx: commands.Context[Bot]) -> None:
            await ctx.reply("pong")

        @self.tree.command()
        async def echo(interaction: discord.Interaction[Bot], text: str) -> None:
            """Says it again."""
            await interaction.response.send_message(text)

        @self.tree.command()
        async def slowly(interaction: discord.Interaction[Bot]) -> None:
            """Says it later."""
            await interaction.response.defer()
            await interaction.followup.send("first")
            await interaction.followup.send("second")

        await self.add_cog(Things())
        self.tree.add_command(repeat)
        await self.tree.sync()

    async def on_message(self, message: discord.Message) -> None:
        if message.author != self.user:
            self.heard.append(message.content)
        await self.process_commands(message)


@pytest.fixture
async def fake() -> AsyncIterator[FakeDiscord]:
    async with FakeDiscord() as fake:
        with fake.redirect():
            yield fake
        assert not [request for request in fake.requests if request.kind == "unknown"]


@pytest.fixture
async def bot(fake: FakeDiscord) -> AsyncIterator[Bot]:
    async with Bot() as bot:
        task = asyncio.create_task(bot.start(fake.token))
        await fake.wait_for(lambda: fake.connected)
        await bot.wait_until_ready()
        yield bot
        await bot.close()
        await task


def said(fake: FakeDiscord) -> list[Message]:
    """What the bot said in the first channel."""
    return fake.messages(fake.channel.id, bot_only=True)


def channel_of(bot: Bot, fake: FakeDiscord) -> discord.TextChannel:
    channel = bot.get_channel(fake.channel.id)
    assert isinstance(channel, discord.TextChannel)
    return channel


async def test_a_bot_is_ready_and_sees_its_guild_and_permissions(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    assert channel.guild.name == "Home"
    assert channel.permissions_for(channel.guild.me).attach_files
    await fake.deny(channel.id, "attach_files")
    await bot.wait_for("guild_channel_update", timeout=60)
    assert not channel.permissions_for(channel.guild.me).attach_files
    with pytest.raises(discord.Forbidden) as refused:
        await channel.send(file=discord.File(__file__))
    assert refused.value.code == 50013
    await channel.send("words are allowed")


async def test_a_prefix_command_is_answered_with_a_reply(
    fake: FakeDiscord, bot: Bot
) -> None:
    question = await fake.member_says(fake.channel.id, "$ping")
    await fake.wait_for(lambda: said(fake))
    [reply] = said(fake)
    assert reply.content == "pong"
    assert reply.replied_to is question
    assert [user.name for user in reply.mentions] == ["mary"]


async def test_content_is_hidden_from_a_bot_without_the_intent(
    fake: FakeDiscord,
) -> None:
    async with discord.Client(
        intents=discord.Intents.default(), guild_ready_timeout=0.1
    ) as client:
        task = asyncio.create_task(client.start(fake.token))
        await fake.wait_for(lambda: fake.connected)
        seen = asyncio.create_task(client.wait_for("message", timeout=60))
        await asyncio.sleep(0)  # lets wait_for begin to listen
        await fake.member_says(fake.channel.id, "secret")
        assert (await seen).content == ""
        seen = asyncio.create_task(client.wait_for("message", timeout=60))
        await asyncio.sleep(0)
        await fake.member_says(fake.channel.id, f"<@{fake.bot.id}> hello")
        assert (await seen).content.endswith("hello")
        await client.close()
        await task


async def test_a_slash_answer_can_be_edited_by_the_channel_route(
    fake: FakeDiscord, bot: Bot
) -> None:
    await fake.slash(fake.channel.id, "echo", {"text": "hello"})
    [answer] = await fake.wait_for(lambda: fake.messages(fake.channel.id))
    await channel_of(bot, fake).get_partial_message(answer.id).edit(content="edited")
    assert answer.content == "edited"
    assert answer.versions == ["hello", "edited"]


async def test_a_deferred_command_is_answered_by_followups(
    fake: FakeDiscord, bot: Bot
) -> None:
    await fake.slash(fake.channel.id, "slowly")
    await fake.wait_for(lambda: len(fake.messages(fake.channel.id)) == 2)
    said = [message.content for message in fake.messages(fake.channel.id)]
    assert said == ["first", "second"]


DENIED = ("nothing", "send_messages", "send_messages_in_threads", "view_channel")


async def test_permissions_are_those_that_discord_py_computes(
    fake: FakeDiscord, bot: Bot
) -> None:
    moderator = await fake.add_moderator("mona", "manage_messages", "manage_guild")
    admin = await fake.add_moderator("adam", "administrator")
    await fake.deny_member(fake.channel.id, moderator.id, "attach_files")
    channels = [fake.channel, await fake.add_thread(fake.channel.id, "inside")]
    people = [fake.bot, fake.owner, fake.member, moderator, admin]
    seen: dict[str, tuple[discord.Permissions, discord.Permissions]] = {}

    @bot.listen()
    async def on_interaction(interaction: discord.Interaction[Bot]) -> None:
        place, user = interaction.channel, interaction.user
        assert isinstance(place, (discord.TextChannel, discord.Thread))
        assert isinstance(user, discord.Member)
        seen[user.name] = (interaction.permissions, place.permissions_for(user))
        me = place.permissions_for(place.guild.me)
        seen["me"] = (interaction.app_permissions, me)

    spoken = discord.Permissions.voice()  # which discord.py leaves out
    for number, denied in enumerate(DENIED, 1):
        await fake.deny(fake.channel.id, *{denied} - {"nothing"})
        for channel in channels:
            seen.clear()
            for user in people[1:]:
                await fake.slash(channel.id, "echo", {"text": "x"}, user.id)
            said = partial(fake.messages, channel.id)
            await fake.wait_for(lambda: len(said()) == 4 * number)  # noqa: B023
            where = f"{denied} in {channel.name}"
            assert len(seen) == 5, where
            for told, computed in seen.values():
                assert told.value | spoken.value == computed.value | spoken.value, where
            assert not seen["mary"][0].manage_messages, where
            assert seen["mona"][0].manage_guild, where


async def test_member_of_one_guild_has_no_role_in_another(
    fake: FakeDiscord, bot: Bot
) -> None:
    other = await fake.add_guild("Away", owner=fake.add_member("oscar"))
    assert other.guild
    moderator = await fake.add_moderator("mona", guild=other.guild)
    assert fake.permissions(other, moderator).manage_messages
    assert not fake.permissions(fake.channel, moderator).manage_messages
    assert not fake.permissions(other, fake.owner).manage_messages
    role, channel = other.guild.roles[-1], other.id
    options = {"member": moderator.id, "role": role.id, "channel": channel}
    asked = await fake.slash(channel, "thing who", options)
    answer = await fake.answered(asked)
    assert answer.content == f"mona @everyone {role.name} {role.name} general"


async def test_ephemeral_answer_is_only_for_the_asker(
    fake: FakeDiscord, bot: Bot
) -> None:
    options = {"name": "x", "number": 2}
    asked = await fake.slash(fake.channel.id, "thing find", options)
    answer = await fake.answered(asked)
    assert answer.content == "x 2" and answer.only_for is fake.member
    assert fake.messages(fake.channel.id) == []
    assert fake.messages(fake.channel.id, seen_by=fake.member) == [answer]
    with pytest.raises(discord.NotFound):
        await channel_of(bot, fake).fetch_message(answer.id)
    with pytest.raises(AssertionError, match="no button"):
        await fake.click(answer.id, "change", fake.owner.id)


async def test_autocomplete_brings_choices(fake: FakeDiscord, bot: Bot) -> None:
    place = fake.channel.id
    ask = fake.autocomplete
    choices = await ask(place, "thing find", "name", "a", {"number": 2})
    assert choices == [{"name": n, "value": n} for n in ("a0", "a1")]
    with pytest.raises(AssertionError, match="name is required"):
        await fake.slash(place, "thing find")


async def test_menu_gets_the_message_that_it_was_used_on(
    fake: FakeDiscord, bot: Bot
) -> None:
    said = await fake.member_says(fake.channel.id, "again")
    answer = await fake.answered(await fake.use_on(said.id, "repeat"))
    assert answer.content == "again" and answer.only_for is fake.member


async def test_buttons_change_their_message_or_answer(
    fake: FakeDiscord, bot: Bot
) -> None:
    asked = await fake.slash(fake.channel.id, "thing press")
    message = await fake.answered(asked)
    assert message.buttons == ["change", "later", "answer"]
    pressed = await fake.answered(await fake.click(message.id, "answer"))
    assert pressed.content == "mary pressed" and pressed.only_for is None
    chosen = await fake.select(message.id, "which", ["two"])
    assert (await fake.answered(chosen)).content == "two"
    more = await fake.answered(await fake.click(message.id, "later"))
    assert message.content == "changed later" and more.content == "and more"
    assert await fake.answered(await fake.click(message.id, "change")) is message
    assert message.content == "changed" and message.items == []


async def test_interaction_is_unknown_when_it_is_acknowledged_too_late(
    fake: FakeDiscord, bot: Bot
) -> None:
    fake.acknowledge_within_s = 0.1
    failures: list[Exception] = []

    @bot.listen()
    async def on_command_error(ctx: commands.Context[Bot], error: Exception) -> None:
        failures.append(error)
        fake._notify()

    asked = await fake.slash(fake.channel.id, "thing press", {"late_s": 0.2})
    await fake.wait_for(lambda: failures)
    assert "error code: 10062" in str(failures[0])
    assert not fake.interactions[asked].callback
    assert fake.messages(fake.channel.id, seen_by=fake.member) == []


async def test_messages_are_deleted_by_who_may(fake: FakeDiscord, bot: Bot) -> None:
    channel = channel_of(bot, fake)
    own = await channel.send("mine")
    theirs = channel.get_partial_message((await fake.member_says(channel.id, "x")).id)
    await fake.deny(channel.id, "manage_messages")
    with pytest.raises(discord.Forbidden):
        await theirs.delete()
    await own.delete()
    with pytest.raises(discord.NotFound):
        await own.delete()
    assert [message.content for message in fake.messages(channel.id)] == ["x"]


async def test_embeds_and_buttons_have_their_limits(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    too_much: list[dict[str, Any]] = [
        {"embed": discord.Embed(title="x" * 257)},
        {"embed": discord.Embed(description="x" * 4097)},
        {"embed": discord.Embed(description="x").set_footer(text="x" * 2049)},
        {"embed": discord.Embed().add_field(name="x", value="x" * 1025)},
        {"embeds": [discord.Embed(description="x" * 3001) for _ in range(2)]},
    ]
    for arguments in too_much:
        with pytest.raises(discord.HTTPException) as refused:
            await channel.send(**arguments)
        assert refused.value.code == 50035
    await channel.send(embeds=[discord.Embed(description="x" * 3000) for _ in "ab"])


async def test_uploaded_files_arrive_byte_for_byte(
    fake: FakeDiscord, bot: Bot, tmp_path: Path
) -> None:
    data = os.urandom(3 * MIB)
    (tmp_path / "a b.bin").write_bytes(data)
    files = [discord.File(tmp_path / "a b.bin"), discord.File(__file__)]
    await channel_of(bot, fake).send("two", files=files)
    [message] = fake.messages(fake.channel.id)
    assert message.files[0].data == data
    assert message.files[1].data == Path(__file__).read_bytes()


async def test_the_same_nonce_posts_once_within_the_window(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    first = await channel.send("one", nonce="job-1")
    assert (await channel.send("one", nonce="job-1")).id == first.id
    fake.nonce_window_s = 0
    assert (await channel.send("one", nonce="job-1")).id != first.id
    assert len(fake.messages(channel.id)) == 2


async def test_a_file_above_the_limit_of_the_tier_is_413(
    fake: FakeDiscord, bot: Bot, tmp_path: Path
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(20 * MIB + 1))
    channel = channel_of(bot, fake)
    with pytest.raises(discord.HTTPException) as refused:
        await channel.send(file=discord.File(big))
    assert (refused.value.status, refused.value.code) == (413, 40005)
    await fake.set_premium_tier(2)
    await channel.send(file=discord.File(big))


async def test_the_limits_and_unknown_things_are_refused_as_by_discord(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    with pytest.raises(discord.HTTPException) as refused:
        await channel.send("x" * 2001)
    assert (refused.value.status, refused.value.code) == (400, 50035)
    said = await fake.member_says(channel.id, "soon gone")
    await fake.delete_message(said.id)
    gone = channel.get_partial_message(said.id)
    with pytest.raises(discord.NotFound) as refused:
        await gone.edit(content="not there")
    assert refused.value.code == 10008
    with pytest.raises(discord.HTTPException) as refused:
        await channel.send("reply", reference=gone)
    assert refused.value.code == 50035
    await channel.send("r", reference=gone.to_reference(fail_if_not_exists=False))
    assert [message.content async for message in channel.history()] == ["r"]
    await fake.delete_channel(channel.id)
    with pytest.raises(discord.NotFound) as refused:
        await channel.send("nowhere")
    assert refused.value.code == 10003


async def test_a_message_has_one_thread_with_its_number(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    first = await channel.send("an album")
    thread = await first.create_thread(name="Album")
    assert (thread.id, thread.auto_archive_duration) == (first.id, 1440)
    await thread.send("inside")
    assert [message.content async for message in thread.history()] == ["inside"]
    for message, code in ((first, 160004), (await thread.send("deep"), 50024)):
        with pytest.raises(discord.HTTPException) as refused:
            await message.create_thread(name="Album")
        assert refused.value.code == code
    second = await channel.send("another album")
    for name in ("", "x" * 101):
        with pytest.raises(discord.HTTPException) as refused:
            await second.create_thread(name=name)
        assert refused.value.code == 50035
    await fake.deny(channel.id, "create_public_threads")
    with pytest.raises(discord.Forbidden):
        await second.create_thread(name="Album")


async def test_a_500_is_retried_by_discord_py(fake: FakeDiscord, bot: Bot) -> None:
    fault = fake.fault("send", 500)
    await channel_of(bot, fake).send("at last")
    assert fault.hits == 1
    assert len(fake.messages(fake.channel.id)) == 1


async def test_a_429_is_waited_for_and_a_503_is_raised(
    fake: FakeDiscord, bot: Bot
) -> None:
    fake.fault("send", 429, retry_after_s=0.01)
    await channel_of(bot, fake).send("patient")
    fake.fault("upload", 503)
    with pytest.raises(discord.DiscordServerError):
        await channel_of(bot, fake).send(file=discord.File(__file__))
    assert len(fake.messages(fake.channel.id)) == 1


async def test_a_lost_answer_and_the_same_nonce_make_one_message(
    fake: FakeDiscord, bot: Bot
) -> None:
    channel = channel_of(bot, fake)
    fake.fault("send", "reset")
    with pytest.raises(aiohttp.ClientConnectionError):
        await channel.send("once", nonce="job-1")
    assert not fake.messages(channel.id)
    fake.fault("send", "lost_answer")
    with pytest.raises(aiohttp.ClientConnectionError):
        await channel.send("once", nonce="job-1")
    await channel.send("once", nonce="job-1")
    assert [message.content for message in fake.messages(channel.id)] == ["once"]


async def test_a_hanging_upload_goes_through_once_released(
    fake: FakeDiscord, bot: Bot
) -> None:
    fault = fake.fault("upload", "hang")
    channel = channel_of(bot, fake)
    sending = asyncio.create_task(channel.send(file=discord.File(__file__)))
    await fake.wait_for(lambda: fault.hits)
    assert not fake.messages(channel.id)
    fault.release()
    await sending
    assert len(fake.messages(channel.id)) == 1


@pytest.mark.parametrize("how", ["cable", "4000", "op 7", "op 9"])
async def test_a_dropped_gateway_is_resumed_without_losing_an_event(
    fake: FakeDiscord, bot: Bot, how: str
) -> None:
    await fake.member_says(fake.channel.id, "before")
    match how:
        case "cable":
            await fake.drop_gateway()
        case "4000":
            await fake.drop_gateway(4000)
        case "op 7":
            await fake.reconnect_op7()
        case "op 9":
            await fake.invalid_session(resumable=True)
    await fake.member_says(fake.channel.id, "meanwhile")
    await fake.wait_for(lambda: fake.sessions["resume"])
    await fake.member_says(fake.channel.id, "after")
    await fake.member_says(fake.channel.id, "$ping")
    await fake.wait_for(lambda: said(fake))
    assert bot.heard == ["before", "meanwhile", "after", "$ping"]
    assert fake.sessions["identify"] == 1


async def test_an_invalid_session_is_identified_anew(
    fake: FakeDiscord, bot: Bot
) -> None:
    await fake.invalid_session(resumable=False)
    await fake.wait_for(lambda: fake.sessions["identify"] == 2)
    await fake.member_says(fake.channel.id, "$ping")
    await fake.wait_for(lambda: said(fake))
    assert fake.sessions["resume"] == 0


async def test_silence_of_the_gateway_makes_the_bot_resume(fake: FakeDiscord) -> None:
    fake.heartbeat_interval_s = 0.05
    async with Bot(heartbeat_timeout=0.3) as bot:
        task = asyncio.create_task(bot.start(fake.token))
        await fake.wait_for(lambda: fake.sessions["heartbeat"] > 3)
        fake.ack_heartbeats = False
        await fake.wait_for(lambda: fake.sessions["resume"])
        fake.ack_heartbeats = True
        await bot.close()
        await task


async def test_a_wrong_token_is_a_login_failure(fake: FakeDiscord) -> None:
    async with asyncio.timeout(60), Bot() as bot:
        with pytest.raises(discord.LoginFailure):
            await bot.start("wrong")


async def test_a_token_that_is_void_by_now_closes_the_gateway_with_4004(
    fake: FakeDiscord,
) -> None:
    class Late(discord.Client):
        async def setup_hook(self) -> None:
            fake.token = "another"

    intents = discord.Intents.default()
    async with asyncio.timeout(60), Late(intents=intents) as client:
        with pytest.raises(discord.ConnectionClosed) as closed:
            await client.start(fake.token)
    assert closed.value.code == 4004


async def test_requests_of_one_channel_run_at_once(fake: FakeDiscord, bot: Bot) -> None:
    channel = channel_of(bot, fake)
    await channel.send("the rate limit's headers are known from now on")
    fault = fake.fault("upload", "hang")
    sending = asyncio.create_task(channel.send(file=discord.File(__file__)))
    await fake.wait_for(lambda: fault.hits)
    await channel.send("meanwhile")
    fault.release()
    await sending


async def test_an_intent_that_is_not_allowed_is_refused(fake: FakeDiscord) -> None:
    fake.message_content_allowed = False
    async with asyncio.timeout(60), Bot() as bot:
        with pytest.raises(discord.PrivilegedIntentsRequired):
            await bot.start(fake.token)


async def test_direct_messages_go_to_those_who_accept_them(
    fake: FakeDiscord, bot: Bot
) -> None:
    user = await bot.fetch_user(fake.member.id)
    await user.send("psst")
    [message] = fake.messages(fake.open_dm(fake.member.id).id)
    assert message.content == "psst"
    fake.member.accepts_dms = False
    with pytest.raises(discord.Forbidden) as refused:
        await user.send("psst")
    assert refused.value.code == 50007


async def test_a_redirected_script_runs_as_if_it_were_run_directly(
    fake: FakeDiscord, tmp_path: Path
) -> None:
    script = tmp_path / "tiny_bot.py"
    script.write_text(BOT_SCRIPT)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(TESTS / "run_redirected.py"), str(script), fake.token),
        env=os.environ | {"FAKE_DISCORD_URL": fake.url},
    )
    try:
        await fake.wait_for(lambda: fake.connected)
        await fake.member_says(fake.channel.id, "$where")
        found = await fake.wait_for(lambda: said(fake))
    finally:
        process.kill()
        await process.wait()
    expected = [str(script), str(tmp_path), str(script), fake.token]
    assert found[0].content.split("|") == expected


async def test_embed_that_the_bot_may_not_send_is_dropped(
    fake: FakeDiscord, bot: Bot
) -> None:
    await fake.deny_member(fake.channel.id, fake.bot.id, "embed_links")
    channel = bot.get_partial_messageable(fake.channel.id)
    await channel.send("words", embed=discord.Embed(title="x"))
    [message] = said(fake)
    assert (message.content, message.embeds) == ("words", [])
    with pytest.raises(discord.HTTPException) as refused:
        await channel.send(embed=discord.Embed(title="x"))
    assert refused.value.code == 50006


async def test_commands_that_are_refused_are_named_by_their_places(
    fake: FakeDiscord, bot: Bot
) -> None:
    fake.refused_commands = {"bad"}
    names = ("good", "bad")
    payload: Any = [{"name": name, "description": "x", "type": 1} for name in names]
    with pytest.raises(discord.HTTPException) as refused:
        await bot.http.bulk_upsert_global_commands(fake.bot.id, payload)
    assert list(refused.value._errors or ()) == ["1"]
    assert "good" not in fake.commands
