"""A small Discord on loopback: gateway, REST, the rules that bots run into, and faults.

The real discord.py talks to it over real sockets; only two addresses are changed:

    async with FakeDiscord() as fake:
        with fake.redirect():
            ...start a bot with fake.token...
            await fake.wait_for(lambda: fake.connected)
            await fake.member_says(fake.channel.id, "$ping")
            await fake.wait_for(lambda: fake.messages(fake.channel.id, bot_only=True))

A bot in a process of its own is started through `run_redirected.py`. The fake can be a
process too: `python tests/fake_discord.py` prints its facts as a line of JSON, and
`POST /control/{name}` calls the public method with the JSON sent as its arguments.
Handlers are declared with `@route(kind, ...)`, and `fault(kind, ...)` breaks them.
"""

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import re
import secrets
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self

import discord
import yarl
from aiohttp import WSMsgType, web
from discord.gateway import DiscordWebSocket
from discord.http import Route

Payload = dict[str, Any]
Files = list[tuple[str, bytes]]  # name and content
Action = int | Literal["reset", "lost_answer", "hang", "hang_answer"]

MIB = 1024 * 1024
# Discord, 2026-09: limit of one file by boost tier; direct messages have tier 0.
UPLOAD_LIMITS_BYTES = {0: 20 * MIB, 1: 20 * MIB, 2: 50 * MIB, 3: 100 * MIB}
TEXT, DM, THREAD = 0, 1, 11  # channel types
REPLY, COMMAND_ANSWER = 19, 20  # message types
SUPPRESS_EMBEDS, EPHEMERAL, LOADING = 1 << 2, 1 << 6, 1 << 7  # message flags
MEMBERS, PRESENCES, GUILD_MESSAGES = 1 << 1, 1 << 8, 1 << 9  # intents
DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 12, 1 << 15
EVERYTHING = discord.Permissions.all().value
BASIC = (
    *("view_channel", "send_messages", "send_messages_in_threads", "attach_files"),
    *("embed_links", "read_message_history", "add_reactions", "create_public_threads"),
    "use_application_commands",
)


def bits(*names: str) -> int:
    return discord.Permissions(**dict.fromkeys(names, True)).value


def role_payload(role_id: int, name: str, *permissions: str) -> Payload:
    data = {"id": str(role_id), "name": name, "position": 0}
    return data | {"permissions": str(bits(*permissions))}


def iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


# --- What Discord keeps ---------------------------------------------------------------


@dataclass(eq=False)
class User:
    id: int
    name: str
    bot: bool = False
    accepts_dms: bool = True

    def payload(self) -> Payload:
        return {
            "id": str(self.id),
            "username": self.name,
            "global_name": None,
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
        }


@dataclass(eq=False)
class Guild:
    id: int
    name: str
    owner: User
    premium_tier: int = 0
    upload_limit_bytes: int | None = None  # overrides the tier's
    roles: dict[int, Payload] = field(default_factory=dict)  # @everyone: the guild's id
    members: dict[int, list[int]] = field(default_factory=dict)  # user id: role ids


@dataclass(eq=False)
class Channel:
    """A text channel, a direct message channel or a thread."""

    id: int
    name: str = ""
    type: int = TEXT
    guild: Guild | None = None
    parent: Self | None = None
    recipient: User | None = None
    overwrites: dict[int, Payload] = field(default_factory=dict)

    def payload(self) -> Payload:
        data: Payload = {"id": str(self.id), "type": self.type, "last_message_id": None}
        if self.guild is None:
            assert self.recipient
            return data | {"recipients": [self.recipient.payload()]}
        data |= {"guild_id": str(self.guild.id), "name": self.name}
        if self.parent is None:
            overwrites = list(self.overwrites.values())
            return data | {"position": 0, "permission_overwrites": overwrites}
        return data | {
            "parent_id": str(self.parent.id),
            "owner_id": str(self.guild.owner.id),
            "message_count": 0,
            "member_count": 1,
            "thread_metadata": {
                "archived": False,
                "auto_archive_duration": 1440,
                "archive_timestamp": iso(discord.utils.snowflake_time(self.id)),
            },
        }


@dataclass(eq=False)
class StoredFile:
    id: int
    filename: str
    data: bytes
    url: str

    def payload(self) -> Payload:
        size_bytes, address = len(self.data), {"url": self.url, "proxy_url": self.url}
        name = {"id": str(self.id), "filename": self.filename}
        return name | address | {"size": size_bytes}


@dataclass(frozen=True)
class Version:
    """A message as it read from `at` on."""

    at: datetime
    content: str
    embeds: list[Payload]
    components: list[Payload]


@dataclass(eq=False)
class Message:
    id: int
    channel: Channel
    author: User
    content: str = ""
    embeds: list[Payload] = field(default_factory=list)
    components: list[Payload] = field(default_factory=list)
    files: list[StoredFile] = field(default_factory=list)
    reference: Payload | None = None  # as the bot sent it
    replied_to: Self | None = None
    nonce: str | None = None
    flags: int = 0
    type: int = 0
    allowed_mentions: Payload | None = None
    mentions: list[User] = field(default_factory=list)  # who was really pinged
    mention_roles: list[int] = field(default_factory=list)
    mention_everyone: bool = False
    reactions: list[str] = field(default_factory=list)  # the bot's own
    interaction: "Interaction | None" = None
    versions: list[Version] = field(default_factory=list)
    deleted: bool = False

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    def payload(self, visible: bool = True) -> Payload:
        """The message as the API shows it; not `visible` without the intent."""
        edited_at = self.versions[-1].at if len(self.versions) > 1 else None
        files = [file.payload() for file in self.files]
        data: Payload = {
            "id": str(self.id),
            "channel_id": str(self.channel.id),
            "author": self.author.payload(),
            "content": self.content if visible else "",
            "embeds": self.embeds if visible else [],
            "components": self.components if visible else [],
            "attachments": files if visible else [],
            "timestamp": iso(discord.utils.snowflake_time(self.id)),
            "edited_timestamp": iso(edited_at),
            "type": self.type,
            "flags": self.flags,
            "tts": False,
            "pinned": False,
            "mentions": [user.payload() for user in self.mentions],
            "mention_roles": [str(role) for role in self.mention_roles],
            "mention_everyone": self.mention_everyone,
        }
        if self.reference:
            answered = self.replied_to
            data["message_reference"] = self.reference
            data["referenced_message"] = answered and answered.payload(visible)
        if self.interaction:
            data["webhook_id"] = data["application_id"] = str(self.author.id)
            data["interaction_metadata"] = {
                "id": str(self.interaction.id),
                "type": self.interaction.type,
                "user": self.interaction.user.payload(),
            }
        return data

    def record(self) -> Payload:
        """The payload and what the API does not show, for /control/ and for print."""
        digests = {f.filename: hashlib.sha256(f.data).hexdigest() for f in self.files}
        texts = [version.content for version in self.versions]
        extra = {"nonce": self.nonce, "deleted": self.deleted, "sha256": digests}
        return self.payload() | extra | {"versions": texts}


@dataclass(eq=False)
class Interaction:
    """A command or a click on its way through the bot."""

    id: int
    token: str
    type: int  # 2 command, 3 component, 4 autocomplete
    channel: Channel
    user: User
    message: Message | None = None  # the one with the button
    answer_type: int | None = None  # of the callback, None until it arrived
    answer: Payload = field(default_factory=dict)  # its data: choices, a modal, ...
    response: Message | None = None  # what @original means
    followups: list[Message] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    def record(self) -> Payload:
        said = [m.record() for m in (self.response, *self.followups) if m]
        return {"token": self.token, "answer_type": self.answer_type, "messages": said}


@dataclass(eq=False)
class Fault:
    """What the next `times` requests of a kind meet; `hits` counts them."""

    kind: str
    action: Action
    times: int = 1
    retry_after_s: float = 0.05  # of a 429
    for_s: float | None = None  # of a hang; None: until release()
    hits: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self._released.set()

    def record(self) -> Payload:
        return {"kind": self.kind, "hits": self.hits}

    async def hold(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.for_s):
                await self._released.wait()


class ApiError(Exception):
    """A refusal, in Discord's words."""

    def __init__(self, status: int, code: int, message: str, where: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body: Payload = {"code": code, "message": message}
        if where:
            self.body["message"] = "Invalid Form Body"
            error = {"code": "INVALID", "message": message}
            self.body["errors"] = {where: {"_errors": [error]}}


@dataclass(frozen=True)
class Request:
    """One REST request as it arrived."""

    kind: str
    method: str
    path: str
    at: float  # time.monotonic()


@dataclass(frozen=True)
class Call:
    """What a handler gets: the request taken apart."""

    params: Mapping[str, str]
    query: Mapping[str, str]
    payload: Any
    files: Files

    def id(self, name: str) -> int:
        return int(self.params[name])


# --- The gateway's two halves: a connection comes and goes, a session stays -----------


class Connection:
    """One websocket, with the compression its client asked for."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.transport = request.transport
        self._compress = stream_compressor(request.query.get("compress", ""))

    async def send(self, op: int, data: Any = None, **extra: Any) -> None:
        """Sends one packet; a packet to a dead connection is lost."""
        text = json.dumps({"op": op, "d": data, "s": None, "t": None} | extra)
        with contextlib.suppress(ConnectionError, RuntimeError):
            if self._compress is None:
                await self.socket.send_str(text)
            else:
                await self.socket.send_bytes(self._compress(text.encode()))

    def abort(self) -> None:
        if self.transport:
            self.transport.abort()


def stream_compressor(kind: str) -> Callable[[bytes], bytes] | None:
    if kind == "zlib-stream":
        zlib_stream = zlib.compressobj()
        return lambda data: (
            zlib_stream.compress(data) + zlib_stream.flush(zlib.Z_SYNC_FLUSH)
        )
    if kind == "zstd-stream":
        zstandard = importlib.import_module("zstandard")  # there if the client has it
        stream = zstandard.ZstdCompressor().compressobj()
        block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        return lambda data: bytes(stream.compress(data) + stream.flush(block))
    return None


@dataclass(eq=False)
class Session:
    """What RESUME goes back to: every event so far, and the connection if any."""

    id: str
    intents: int
    shard: tuple[int, int]
    events: list[tuple[str, Payload]] = field(default_factory=list)
    connection: Connection | None = None

    def serves(self, guild: Guild | None) -> bool:
        index, count = self.shard
        return (guild.id >> 22 if guild else 0) % count == index

    async def dispatch(self, event: str, data: Payload) -> None:
        self.events.append((event, data))
        if self.connection:
            await self.connection.send(0, data, s=len(self.events), t=event)

    async def attach(self, connection: Connection, seen: int = 0) -> None:
        """Sends what came after event number `seen`, then everything as it comes."""
        while seen < len(self.events):
            event, data = self.events[seen]
            seen += 1
            await connection.send(0, data, s=seen, t=event)
        self.connection = connection


# --- The server -----------------------------------------------------------------------

Handler = Callable[["FakeDiscord", Call], Awaitable[Any]]
ROUTES: list[tuple[str, str, str, Handler]] = []


def route(kind: str, *where: str) -> Callable[[Handler], Handler]:
    """Serves each "METHOD /path" with what it decorates; None becomes a 204."""

    def keep(handler: Handler) -> Handler:
        for place in where:
            method, path = place.split()
            ROUTES.append((kind, method, path, handler))
        return handler

    return keep


MESSAGES = "/channels/{channel_id}/messages"
MESSAGE = f"{MESSAGES}/{{message_id}}"
REACTION = f"{MESSAGE}/reactions/{{emoji}}/@me"
FOLLOWUPS = "/webhooks/{application_id}/{token}"
FOLLOWUP = f"{FOLLOWUPS}/messages/{{message_id}}"
COMMANDS = "/applications/{application_id}/commands"
GUILD_COMMANDS = "/applications/{application_id}/guilds/{guild_id}/commands"


class FakeDiscord:
    """The server; starts with one guild, its owner, a member, a channel and the bot."""

    def __init__(self, port: int = 0, token: str = "fake.discord.token") -> None:
        self.token = token
        self.port = port  # 0: a free one, known once entered
        self.message_content_allowed = True  # the switch in the developer portal
        self.ack_heartbeats = True
        self.heartbeat_interval_s = 41.25
        self.nonce_window_s = 300.0
        self.answer_within_s = 3.0  # the first answer to an interaction
        self.interaction_token_s = 900.0
        self.request_limit_bytes = 25 * MIB  # of several files together
        # Without rate limit headers (0), discord.py sends one request at a time per
        # route and channel; Discord's own let about 5 run at once.
        self.burst = 0
        self.sessions: Counter[str] = Counter()  # connect, identify, resume, heartbeat
        self.requests: list[Request] = []
        self.unknown: list[str] = []  # "METHOD /path" that the fake does not know
        self.commands: dict[int | None, list[Payload]] = {}  # by guild; None is global
        self.interactions: dict[str, Interaction] = {}  # by token
        self.typing: Counter[int] = Counter()  # by channel id
        self.users: dict[int, User] = {}
        self.guilds: dict[int, Guild] = {}
        self.channels: dict[int, Channel] = {}
        self.all_messages: dict[int, Message] = {}  # deleted and ephemeral ones too
        self.changes = 0
        self._wake = asyncio.Event()
        self._last_id = 0
        self._faults: list[Fault] = []
        self._nonces: dict[tuple[int, str], tuple[float, Message]] = {}
        self._sessions: dict[str, Session] = {}
        self.bot = self._add_user("Boss-Bot", bot=True)
        self.owner = self._add_user("olga")
        self.guild = self._new_guild("Home")
        self.member = self.add_member("mary")
        self.channel = self._add_channel("general", guild=self.guild)

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=0)
        add = application.router.add_route
        for kind, method, path, handler in ROUTES:
            add(method, f"/api/v10{path}", self._endpoint(kind, handler))
        add("GET", "/gateway", self._gateway)
        add("GET", "/attachments/{file_id}/{name}", self._download)
        add("POST", "/control/{method}", self._control)
        add("*", "/{rest:.*}", self._endpoint("unknown", FakeDiscord._unknown))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear_faults()
        await self.drop_gateway()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway"

    @property
    def connected(self) -> int:
        """How many sessions have a live connection."""
        return len(self._attached())

    @contextlib.contextmanager
    def redirect(self) -> Iterator[None]:
        """Leads discord.py in this process here, and back afterwards."""
        before = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
        Route.BASE = f"{self.url}/api/v10"
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(self.gateway_url)
        try:
            yield
        finally:
            Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = before

    async def wait_for(
        self, predicate: Callable[[], Any], timeout_s: float = 10
    ) -> Any:
        """Returns what `predicate` returns once it is true; asks at every change here.

        A change is a request, a gateway packet or a call of the methods below.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not (result := predicate()):
                    await self._wake.wait()
        except TimeoutError:
            asked = [f"{r.method} {r.path} ({r.kind})" for r in self.requests[-5:]]
            said = [m.record() for m in list(self.all_messages.values())[-3:]]
            text = f"not within {timeout_s} s; requests: {asked}; messages: {said}"
            raise TimeoutError(text) from None
        return result

    async def wait_changes(self, after: int, timeout_s: float = 10) -> int:
        """Returns the number of changes once it is above `after`, or after a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.changes <= after:
                    await self._wake.wait()
        return self.changes

    async def settle(self) -> None:
        """Returns once the bot has read what was sent to it so far.

        That is: it answered several heartbeat requests in turn, so that answers on
        its other connections have arrived too. What it does with them may go on.
        """
        for _ in range(3):
            attached = self._attached()
            enough = self.sessions["heartbeat"] + len(attached)
            for session in attached:
                assert session.connection
                await session.connection.send(1)
            await self._heartbeats(enough)

    async def _heartbeats(self, enough: int) -> None:
        await self.wait_for(
            lambda: self.sessions["heartbeat"] >= enough or not self.connected
        )

    # --- What a test does: people, places, faults ---

    def new_id(self) -> int:
        """A snowflake of now, larger than any before."""
        now = discord.utils.time_snowflake(datetime.now(UTC))
        self._last_id = max(now, self._last_id + 1)
        return self._last_id

    def add_member(self, name: str, *permissions: str) -> User:
        """A member of the guild, with a role of these permissions if any are named."""
        user = self._add_user(name)
        self.guild.members[user.id] = []
        if permissions:
            role_id = self.new_id()
            self.guild.roles[role_id] = role_payload(role_id, name, *permissions)
            self.guild.members[user.id].append(role_id)
        return user

    async def add_guild(self, name: str, premium_tier: int = 0) -> Channel:
        """The first channel of a new guild that the bot and everybody has joined."""
        guild = self._new_guild(name, premium_tier)
        channel = self._add_channel("general", guild=guild)
        await self._emit("GUILD_CREATE", self._guild_payload(guild), guild)
        return channel

    async def add_channel(self, name: str, guild: Guild | None = None) -> Channel:
        channel = self._add_channel(name, guild=guild or self.guild)
        await self._emit("CHANNEL_CREATE", channel.payload(), channel.guild)
        return channel

    async def add_thread(self, parent_id: int, name: str) -> Channel:
        parent = self.channels[parent_id]
        place = {"guild": parent.guild, "parent": parent}
        thread = self._add_channel(name, type=THREAD, **place)
        data = thread.payload() | {"newly_created": True}
        await self._emit("THREAD_CREATE", data, thread.guild)
        return thread

    def open_dm(self, user_id: int) -> Channel:
        """The direct message channel of the bot and that user."""
        known = (c for c in self.channels.values() if c.recipient)
        found = (c for c in known if c.recipient and c.recipient.id == user_id)
        return next(found, None) or self._add_channel(
            "", type=DM, recipient=self.users[user_id]
        )

    async def deny(self, channel_id: int, *permissions: str) -> None:
        """Denies the bot exactly these permissions in the channel; none lifts it."""
        channel = self.channels[channel_id]
        overwrite = {"id": str(self.bot.id), "type": 1, "allow": "0"}
        channel.overwrites[self.bot.id] = overwrite | {"deny": str(bits(*permissions))}
        await self._emit("CHANNEL_UPDATE", channel.payload(), channel.guild)

    async def set_premium_tier(self, tier: int, guild: Guild | None = None) -> None:
        guild = guild or self.guild
        guild.premium_tier = tier
        await self._emit("GUILD_UPDATE", self._guild_payload(guild), guild)

    async def member_says(
        self,
        channel_id: int,
        content: str,
        user_id: int | None = None,
        files: Mapping[str, bytes] | None = None,
        reply_to: int | None = None,
    ) -> Message:
        payload: Payload = {"content": content}
        if reply_to:
            payload["message_reference"] = {"message_id": str(reply_to)}
        author = self.users[user_id or self.member.id]
        message = self._write(
            Message(self.new_id(), self.channels[channel_id], author),
            payload,
            list((files or {}).items()),
        )
        return await self._publish(message)

    async def slash(
        self,
        channel_id: int,
        name: str,
        options: Mapping[str, Any] | None = None,
        user_id: int | None = None,
    ) -> Interaction:
        """Uses the command ("settings set" with its groups) that the bot registered."""
        return await self._use_command(2, channel_id, name, options or {}, user_id)

    async def autocomplete(
        self,
        channel_id: int,
        name: str,
        options: Mapping[str, Any],
        focused: str,
        user_id: int | None = None,
    ) -> Interaction:
        """Types in the option `focused`; `answer` of the result has the choices."""
        return await self._use_command(4, channel_id, name, options, user_id, focused)

    async def message_command(
        self, message_id: int, name: str, user_id: int | None = None
    ) -> Interaction:
        """Picks an entry of the context menu of a message."""
        message = self.all_messages[message_id]
        command = self._command(message.channel, name, 3)
        resolved = {"messages": {str(message_id): message.payload()}}
        data = {"id": command["id"], "name": name, "type": 3, "resolved": resolved}
        data["target_id"] = str(message_id)
        return await self._interact(2, message.channel, data, user_id)

    async def click(
        self,
        message_id: int,
        custom_id: str,
        user_id: int | None = None,
        values: list[str] | None = None,
    ) -> Interaction:
        """Clicks a button of a message, or picks `values` of a select menu.

        First lets the bot learn of its message: views listen only from then on.
        """
        await self.settle()
        message = self.all_messages[message_id]
        items = {item.get("custom_id"): item for item in walk(message.components)}
        if custom_id not in items or items[custom_id].get("disabled"):
            raise LookupError(f"{custom_id!r} is none of {items}, or disabled")
        kind = items[custom_id]["type"]
        data: Payload = {"custom_id": custom_id, "component_type": kind}
        if values is not None:
            data["values"] = values
        return await self._interact(3, message.channel, data, user_id, message)

    def messages(self, channel_id: int, bot_only: bool = False) -> list[Message]:
        """What stands in the channel, oldest first; ephemeral answers included."""
        return [
            message
            for message in self.all_messages.values()
            if message.channel.id == channel_id
            and not message.deleted
            and (message.author is self.bot or not bot_only)
        ]

    async def delete_message(self, message_id: int) -> None:
        message = self.all_messages[message_id]
        message.deleted = True
        data = {"id": str(message_id), "channel_id": str(message.channel.id)}
        await self._emit_message("MESSAGE_DELETE", message, data)

    async def delete_channel(self, channel_id: int) -> None:
        channel = self.channels.pop(channel_id)
        event = "THREAD_DELETE" if channel.type == THREAD else "CHANNEL_DELETE"
        await self._emit(event, channel.payload(), channel.guild)

    def fault(self, kind: str, action: Action, times: int = 1, **how: Any) -> Fault:
        """Breaks the next requests of a kind ("*": any), after faults set before.

        Args:
            kind: "upload" (post with files), "send" (post without), "edit", "callback",
                "followup", "edit_followup", "gateway" (connecting; only a status), or
                what else `@route` names.
            action: a status: nothing is done and it is answered (429 with
                `retry_after_s`); "reset": nothing is done, the connection is reset;
                "lost_answer": done, then reset; "hang": held for `for_s` or until
                `release()`, then done unless the client has gone; "hang_answer": done,
                then the answer is held.
            how: `retry_after_s` and `for_s`.
        """
        kinds = {"*", "upload", "gateway"} | {known for known, *_ in ROUTES}
        if kind not in kinds:
            raise ValueError(f"{kind!r} is none of {sorted(kinds)}")
        self._faults.append(Fault(kind, action, times, **how))
        return self._faults[-1]

    def clear_faults(self) -> None:
        """Ends all faults, and releases what they hold."""
        for fault in self._faults:
            fault.times = fault.hits
            fault.release()

    async def drop_gateway(self, code: int | None = None) -> None:
        """Closes the gateway's connections: with a code, or as a cut cable would."""
        for session in self._attached():
            connection, session.connection = session.connection, None
            assert connection
            if code is None:
                connection.abort()
            else:
                await connection.socket.close(code=code)
        self._notify()

    async def reconnect_op7(self) -> None:
        for session in self._attached():
            assert session.connection
            await session.connection.send(7)

    async def invalid_session(self, resumable: bool) -> None:
        for session in self._attached():
            assert session.connection
            if not resumable:
                del self._sessions[session.id]
            await session.connection.send(9, resumable)

    # --- State ---

    def _notify(self) -> None:
        self.changes += 1
        self._wake.set()
        self._wake = asyncio.Event()

    def _attached(self) -> list[Session]:
        return [s for s in self._sessions.values() if s.connection]

    def _add_user(self, name: str, bot: bool = False) -> User:
        user = User(self.new_id(), name, bot)
        self.users[user.id] = user
        return user

    def _new_guild(self, name: str, premium_tier: int = 0) -> Guild:
        guild = Guild(self.new_id(), name, self.owner, premium_tier)
        self.guilds[guild.id] = guild
        guild.members = {user_id: [] for user_id in self.users}
        guild.roles[guild.id] = role_payload(guild.id, "@everyone", *BASIC)
        return guild

    def _add_channel(self, name: str, **how: Any) -> Channel:
        channel = Channel(self.new_id(), name, **how)
        self.channels[channel.id] = channel
        return channel

    def _member_payload(self, guild: Guild, user: User) -> Payload:
        roles = [str(role) for role in guild.members.get(user.id, [])]
        joined_at = iso(discord.utils.snowflake_time(guild.id))
        flags = {"flags": 0, "deaf": False, "mute": False}
        return {"user": user.payload(), "roles": roles, "joined_at": joined_at} | flags

    def _guild_payload(self, guild: Guild) -> Payload:
        """The guild as in GUILD_CREATE: of its members only the bot."""
        here = [c for c in self.channels.values() if c.guild is guild]
        return {
            "id": str(guild.id),
            "name": guild.name,
            "owner_id": str(guild.owner.id),
            "premium_tier": guild.premium_tier,
            "member_count": len(guild.members),
            "unavailable": False,
            "roles": list(guild.roles.values()),
            "members": [self._member_payload(guild, self.bot)],
            "channels": [c.payload() for c in here if c.type == TEXT],
            "threads": [c.payload() for c in here if c.type == THREAD],
        }

    def permissions(self, user: User, channel: Channel) -> int:
        """The permission bits of a user in a channel, overwrites applied."""
        guild = channel.guild
        if guild is None or guild.owner is user:
            return bits(*BASIC) if guild is None else EVERYTHING
        mine = [guild.id, *guild.members.get(user.id, [])]
        value = 0
        for role in mine:
            value |= int(guild.roles[role]["permissions"])
        if value & bits("administrator"):
            return EVERYTHING
        overwrites = (channel.parent or channel).overwrites
        for target in (*mine, user.id):
            if overwrite := overwrites.get(target):
                value = value & ~int(overwrite["deny"]) | int(overwrite["allow"])
        return value

    def _require(self, channel: Channel, *names: str) -> None:
        mine = self.permissions(self.bot, channel)
        if not mine & bits("view_channel"):
            raise ApiError(403, 50001, "Missing Access")
        if bits(*names) & ~mine:
            raise ApiError(403, 50013, "Missing Permissions")

    def _channel_of(self, call: Call) -> Channel:
        channel = self.channels.get(call.id("channel_id"))
        if channel is None:
            raise ApiError(404, 10003, "Unknown Channel")
        self._require(channel)
        return channel

    def _message_of(self, call: Call) -> Message:
        channel = self._channel_of(call)
        message = self.all_messages.get(call.id("message_id"))
        if message not in self._history(channel):
            raise ApiError(404, 10008, "Unknown Message")
        assert message
        return message

    def _history(self, channel: Channel) -> list[Message]:
        return [m for m in self.messages(channel.id) if not m.ephemeral]

    def _own_message(self, call: Call) -> Message:
        message = self._message_of(call)
        if message.author is not self.bot:
            text = "Cannot edit a message authored by another user"
            raise ApiError(403, 50005, text)
        return message

    def _visible(self, message: Message, intents: int = 0) -> bool:
        """Whether the bot may read the content: with the intent, or if addressed."""
        channel, addressed = message.channel, self.bot in message.mentions
        own = message.author is self.bot or channel.guild is None
        return own or addressed or bool(intents & MESSAGE_CONTENT)

    def _shown(self, message: Message) -> Payload:
        """The message as REST shows it, where the portal's switch decides."""
        allowed = MESSAGE_CONTENT if self.message_content_allowed else 0
        return message.payload(self._visible(message, allowed))

    def _write(self, message: Message, payload: Payload, files: Files) -> Message:
        """Puts what was sent into a new or older message, if it is within the rules."""
        kept = message.files
        if isinstance(payload.get("attachments"), list):
            ids = {int(entry["id"]) for entry in payload["attachments"]}
            kept = [file for file in kept if file.id in ids]
        check_limits(payload, len(kept) + len(files))
        guild, sizes = message.channel.guild, [len(data) for _, data in files]
        limit = guild and guild.upload_limit_bytes
        limit = limit or UPLOAD_LIMITS_BYTES[guild.premium_tier if guild else 0]
        too_many = len(sizes) > 1 and sum(sizes) > self.request_limit_bytes
        if max(sizes, default=0) > limit or too_many:
            raise ApiError(413, 40005, "Request entity too large")
        new: Payload = {
            name: payload.get(name, getattr(message, name)) or empty
            for name, empty in (("content", ""), ("embeds", []), ("components", []))
        }
        flags = message.flags & ~SUPPRESS_EMBEDS | payload.get("flags", 0)
        if not (any(new.values()) or kept or files or flags & LOADING):
            raise ApiError(400, 50006, "Cannot send an empty message")
        reference = payload.get("message_reference")
        if reference and not message.versions:
            self._refer(message, reference)
        message.content, message.embeds, message.components = new.values()
        message.flags, message.files = flags, list(kept)
        for name, data in files:
            file_id = self.new_id()
            address = f"{self.url}/attachments/{file_id}/{name}"
            message.files.append(StoredFile(file_id, name, data, address))
        message.allowed_mentions = payload.get("allowed_mentions")
        self._ping(message)
        message.versions.append(Version(datetime.now(UTC), **new))
        return message

    def _refer(self, message: Message, reference: Payload) -> None:
        target = self.all_messages.get(int(reference["message_id"]))
        if target is None or target.deleted or target.channel is not message.channel:
            if reference.get("fail_if_not_exists", True):
                raise ApiError(400, 50035, "Unknown message", "message_reference")
            return  # Discord sends it as no reply
        channel = {"channel_id": str(message.channel.id)}
        message.reference = reference | {"message_id": str(target.id)} | channel
        message.replied_to, message.type = target, REPLY

    def _ping(self, message: Message) -> None:
        """Decides who is pinged: what the text names and `allowed_mentions` allows."""
        allowed = message.allowed_mentions
        if allowed is None:
            everybody = ["users", "roles", "everyone"]
            allowed = {"parse": everybody, "replied_user": True}

        def named(pattern: str, what: str) -> set[int]:
            ids = {int(number) for number in re.findall(pattern, message.content)}
            open_to_all = what in allowed.get("parse", [])
            return ids if open_to_all else ids & {*map(int, allowed.get(what, []))}

        users = named(r"<@!?(\d+)>", "users")
        if message.replied_to and allowed.get("replied_user"):
            users.add(message.replied_to.author.id)
        message.mentions = [self.users[i] for i in sorted(users) if i in self.users]
        message.mention_roles = sorted(named(r"<@&(\d+)>", "roles"))
        loud = bool(re.search("@everyone|@here", message.content))
        message.mention_everyone = loud and "everyone" in allowed.get("parse", [])

    async def _publish(self, message: Message) -> Message:
        self.all_messages[message.id] = message
        await self._emit_message("MESSAGE_CREATE", message)
        return message

    async def _rewrite(
        self, message: Message, payload: Payload, files: Files
    ) -> Message:
        self._write(message, payload, files)
        message.flags &= ~LOADING
        await self._emit_message("MESSAGE_UPDATE", message)
        return message

    # --- Gateway ---

    async def _emit(
        self,
        event: str,
        data: Payload | Callable[[Session], Payload],
        guild: Guild | None,
        intent: int = 0,
    ) -> None:
        """Sends an event to the sessions that serve the guild and have the intent."""
        for session in list(self._sessions.values()):
            if session.serves(guild) and session.intents & intent == intent:
                mine = data(session) if callable(data) else data
                await session.dispatch(event, mine)
        self._notify()

    async def _emit_message(
        self, event: str, message: Message, data: Payload | None = None
    ) -> None:
        guild, author = message.channel.guild, message.author
        if message.ephemeral:
            return

        def full(session: Session) -> Payload:
            shown = data or message.payload(self._visible(message, session.intents))
            if event == "MESSAGE_CREATE" and message.nonce:
                shown["nonce"] = message.nonce
            if guild is None:
                return shown
            member = {} if data else {"member": self._member_payload(guild, author)}
            return shown | {"guild_id": str(guild.id)} | member

        intent = GUILD_MESSAGES if guild else DIRECT_MESSAGES
        await self._emit(event, full, guild, intent)

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        fault = self._next_fault("gateway")
        if fault and isinstance(fault.action, int):
            return web.Response(status=fault.action)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        connection, session = Connection(socket, request), None
        self._count("connect")
        interval_ms = self.heartbeat_interval_s * 1000
        await connection.send(10, {"heartbeat_interval": interval_ms})
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                continue
            packet = frame.json()
            if packet["op"] == 1:
                self._count("heartbeat")
                if self.ack_heartbeats:
                    await connection.send(11)
            elif packet["op"] in (2, 6):
                start = self._identify if packet["op"] == 2 else self._resume
                session = await start(connection, packet["d"])
        if session and session.connection is connection:
            session.connection = None
            if socket.close_code in (1000, 1001):  # the bot took its leave
                self._sessions.pop(session.id, None)
        self._notify()
        return socket

    def _count(self, what: str) -> None:
        self.sessions[what] += 1
        self._notify()

    async def _identify(self, connection: Connection, data: Payload) -> Session | None:
        index, count = data.get("shard", (0, 1))
        allowed = ~(MEMBERS | PRESENCES)
        if not self.message_content_allowed:
            allowed &= ~MESSAGE_CONTENT
        if data["token"] != self.token or data["intents"] & ~allowed:
            wrong_token = data["token"] != self.token
            await connection.socket.close(code=4004 if wrong_token else 4014)
            return None
        session = Session(secrets.token_hex(8), data["intents"], (index, count))
        guilds = [g for g in self.guilds.values() if session.serves(g)]
        ready = {
            "v": 10,
            "user": self.bot.payload(),
            "guilds": [{"id": str(g.id), "unavailable": True} for g in guilds],
            "session_id": session.id,
            "resume_gateway_url": self.gateway_url,
            "application": {"id": str(self.bot.id), "flags": self._portal_flags},
            "shard": [index, count],
        }
        session.events.append(("READY", ready))
        session.events += [("GUILD_CREATE", self._guild_payload(g)) for g in guilds]
        self._sessions[session.id] = session
        await session.attach(connection)
        self._count("identify")
        return session

    async def _resume(self, connection: Connection, data: Payload) -> Session | None:
        session = self._sessions.get(data["session_id"])
        if data["token"] != self.token:
            await connection.socket.close(code=4004)
            return None
        if session is None:
            await connection.send(9, False)
            return None
        await session.attach(connection, data["seq"])
        await session.dispatch("RESUMED", {})
        self._count("resume")
        return session

    @property
    def _portal_flags(self) -> int:
        return 1 << 19 if self.message_content_allowed else 0

    # --- Interactions ---

    def _command(self, channel: Channel, name: str, kind: int) -> Payload:
        local = self.commands.get(channel.guild.id, []) if channel.guild else []
        for command in [*local, *self.commands.get(None, [])]:
            if command["name"] == name and command["type"] == kind:
                return command
        raise LookupError(f"the bot did not register {name!r} but {self.commands}")

    async def _use_command(
        self,
        kind: int,
        channel_id: int,
        name: str,
        options: Mapping[str, Any],
        user_id: int | None,
        focused: str = "",
    ) -> Interaction:
        channel = self.channels[channel_id]
        first, *rest = name.split()
        level = command = self._command(channel, first, 1)
        path = []
        for word in rest:
            level = next(o for o in level["options"] if o["name"] == word)
            path.append({"type": level["type"], "name": word})
        declared = {option["name"]: option for option in level.get("options", [])}
        required = {n for n, o in declared.items() if o.get("required")}
        missing = required - options.keys() if kind == 2 else set()
        if missing or options.keys() - declared.keys():
            raise LookupError(f"{name} takes {declared}, not {options}")
        given: list[Payload] = []
        resolved: Payload = {"users": {}, "members": {}, "channels": {}, "roles": {}}
        for option, value in options.items():
            sort = declared[option]["type"]
            if sort in (6, 7, 8):  # a user, channel or role: given by its id
                self._resolve(channel, sort, int(value), resolved)
                value = str(value)
            entry = {"name": option, "type": sort, "value": value}
            given.append(entry | ({"focused": True} if option == focused else {}))
        for step in reversed(path):
            given = [step | {"options": given}]
        data = {"id": command["id"], "name": first, "type": 1, "options": given}
        data["resolved"] = resolved
        return await self._interact(kind, channel, data, user_id)

    def _resolve(self, here: Channel, sort: int, id: int, resolved: Payload) -> None:
        assert here.guild
        if sort == 6:
            user = self.users[id]
            resolved["users"][str(id)] = user.payload()
            resolved["members"][str(id)] = self._member_payload(here.guild, user)
        elif sort == 7:
            channel = self.channels[id]
            mine = {"permissions": str(self.permissions(self.bot, channel))}
            resolved["channels"][str(id)] = channel.payload() | mine
        else:
            resolved["roles"][str(id)] = here.guild.roles[id]

    async def _interact(
        self,
        kind: int,
        channel: Channel,
        data: Payload,
        user_id: int | None,
        message: Message | None = None,
    ) -> Interaction:
        user, token = self.users[user_id or self.member.id], secrets.token_hex(16)
        new = Interaction(self.new_id(), token, kind, channel, user, message)
        self.interactions[token] = new
        event: Payload = {
            "id": str(new.id),
            "application_id": str(self.bot.id),
            "type": kind,
            "data": data,
            "token": token,
            "version": 1,
            "channel": channel.payload(),
            "channel_id": str(channel.id),
            "app_permissions": str(self.permissions(self.bot, channel)),
            "attachment_size_limit": UPLOAD_LIMITS_BYTES[0],  # the asker's own
            "locale": "en-US",
            "entitlements": [],
        }
        if message:
            event["message"] = message.payload()
        if guild := channel.guild:
            rights = {"permissions": str(self.permissions(user, channel))}
            event["guild_id"], event["guild"] = str(guild.id), {"id": str(guild.id)}
            event["member"] = self._member_payload(guild, user) | rights
        else:
            event["user"] = user.payload()
        await self._emit("INTERACTION_CREATE", event, guild)
        return new

    @route("callback", "POST /interactions/{interaction_id}/{token}/callback")
    async def _callback(self, call: Call) -> Payload | None:
        interaction = self.interactions.get(call.params["token"])
        now = time.monotonic()
        if not interaction or now > interaction.started_at + self.answer_within_s:
            raise ApiError(404, 10062, "Unknown interaction")
        if interaction.answer_type is not None:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        kind, data = call.payload["type"], call.payload.get("data") or {}
        message = interaction.message
        resource: Payload = {"type": kind}
        if kind in (4, 5):  # a message, now or later
            if kind == 5:
                data = {"flags": data.get("flags", 0) | LOADING}
            message = await self._answer(interaction, data, call.files)
        elif kind == 7:
            assert message, "only a component has a message to update"
            await self._rewrite(message, data, call.files)
        interaction.answer_type, interaction.answer = kind, data
        interaction.response = message
        if call.query.get("with_response") not in ("1", "true"):
            return None
        about: Payload = {"id": str(interaction.id), "type": interaction.type}
        if message:
            about["response_message_id"] = str(message.id)
            about["response_message_loading"] = bool(message.flags & LOADING)
            about["response_message_ephemeral"] = message.ephemeral
        if message and kind in (4, 7):
            resource["message"] = message.payload()
        return {"interaction": about, "resource": resource}

    async def _answer(
        self, interaction: Interaction, data: Payload, files: Files
    ) -> Message:
        kind = COMMAND_ANSWER if interaction.type == 2 else 0
        message = Message(self.new_id(), interaction.channel, self.bot, type=kind)
        message.interaction = interaction
        return await self._publish(self._write(message, data, files))

    def _interaction_of(self, call: Call) -> Interaction:
        interaction = self.interactions.get(call.params["token"])
        now = time.monotonic()
        if not interaction or now > interaction.started_at + self.interaction_token_s:
            raise ApiError(401, 50027, "Invalid Webhook Token")
        return interaction

    def _followup_of(self, call: Call) -> Message:
        interaction, wanted = self._interaction_of(call), call.params["message_id"]
        messages = [m for m in (interaction.response, *interaction.followups) if m]
        for message in messages:
            original = wanted == "@original" and message is interaction.response
            if not message.deleted and (original or wanted == str(message.id)):
                return message
        raise ApiError(404, 10008, "Unknown Message")

    @route("followup", f"POST {FOLLOWUPS}")
    async def _follow_up(self, call: Call) -> Payload:
        interaction = self._interaction_of(call)
        if interaction.answer_type is None:
            raise ApiError(404, 10015, "Unknown Webhook")
        original = interaction.response
        if original and original.flags & LOADING:  # the first one fills a deferred one
            return (await self._rewrite(original, call.payload, call.files)).payload()
        message = await self._answer(interaction, call.payload, call.files)
        interaction.followups.append(message)
        return message.payload()

    @route("get_followup", f"GET {FOLLOWUP}")
    async def _get_followup(self, call: Call) -> Payload:
        return self._followup_of(call).payload()

    @route("edit_followup", f"PATCH {FOLLOWUP}")
    async def _edit_followup(self, call: Call) -> Payload:
        message = self._followup_of(call)
        return (await self._rewrite(message, call.payload, call.files)).payload()

    @route("delete_followup", f"DELETE {FOLLOWUP}")
    async def _delete_followup(self, call: Call) -> None:
        await self.delete_message(self._followup_of(call).id)

    @route("commands", f"PUT {COMMANDS}", f"PUT {GUILD_COMMANDS}")
    async def _put_commands(self, call: Call) -> list[Payload]:
        guild_id = int(call.params.get("guild_id", 0)) or None
        before = self.commands.get(guild_id, [])
        known = {(c["name"], c["type"]): c["id"] for c in before}
        self.commands[guild_id] = []
        for command in call.payload:
            kind = command.get("type", 1)
            new = {"type": kind, "description": "", "application_id": str(self.bot.id)}
            new["id"] = known.get((command["name"], kind)) or str(self.new_id())
            new |= {"guild_id": str(guild_id)} if guild_id else {}
            self.commands[guild_id].append(new | command)
        return self.commands[guild_id]

    @route("get_commands", f"GET {COMMANDS}", f"GET {GUILD_COMMANDS}")
    async def _get_commands(self, call: Call) -> list[Payload]:
        return self.commands.get(int(call.params.get("guild_id", 0)) or None, [])

    # --- Messages, channels and the rest of REST ---

    @route("send", f"POST {MESSAGES}")
    async def _send(self, call: Call) -> Payload:
        channel, payload = self._channel_of(call), call.payload
        in_thread = "_in_threads" if channel.type == THREAD else ""
        self._require(channel, f"send_messages{in_thread}")
        if call.files:
            self._require(channel, "attach_files")
        if payload.get("embeds"):
            self._require(channel, "embed_links")
        if channel.recipient and not channel.recipient.accepts_dms:
            raise ApiError(403, 50007, "Cannot send messages to this user")
        nonce, now = payload.get("nonce"), time.monotonic()
        if nonce and payload.get("enforce_nonce"):
            sent_at, earlier = self._nonces.get((channel.id, nonce), (now, None))
            if earlier and now - sent_at < self.nonce_window_s:
                return earlier.payload() | {"nonce": nonce}
        message = Message(self.new_id(), channel, self.bot, nonce=nonce)
        self._write(message, payload, call.files)
        if nonce:
            self._nonces[channel.id, nonce] = now, message
        await self._publish(message)
        return message.payload() | ({"nonce": nonce} if nonce else {})

    @route("history", f"GET {MESSAGES}")
    async def _get_history(self, call: Call) -> list[Payload]:
        channel = self._channel_of(call)
        if not self.permissions(self.bot, channel) & bits("read_message_history"):
            return []
        found, query = self._history(channel), call.query
        limit = int(query.get("limit", 50))
        if "around" in query:
            middle = int(query["around"])
            nearest = sorted(found, key=lambda message: abs(message.id - middle))
            found = sorted(nearest[:limit], key=lambda message: message.id)
        elif "after" in query:
            found = [m for m in found if m.id > int(query["after"])][:limit]
        elif "before" in query:
            found = [m for m in found if m.id < int(query["before"])]
        return [self._shown(message) for message in reversed(found[-limit:])]

    @route("get_message", f"GET {MESSAGE}")
    async def _get_message(self, call: Call) -> Payload:
        self._require(self._channel_of(call), "read_message_history")
        return self._shown(self._message_of(call))

    @route("edit", f"PATCH {MESSAGE}")
    async def _edit(self, call: Call) -> Payload:
        message = self._own_message(call)
        return (await self._rewrite(message, call.payload, call.files)).payload()

    @route("delete", f"DELETE {MESSAGE}")
    async def _delete(self, call: Call) -> None:
        message = self._message_of(call)
        if message.author is not self.bot:
            self._require(message.channel, "manage_messages")
        await self.delete_message(message.id)

    @route("react", f"PUT {REACTION}")
    async def _react(self, call: Call) -> None:
        message = self._message_of(call)
        self._require(message.channel, "add_reactions", "read_message_history")
        message.reactions.append(call.params["emoji"])

    @route("unreact", f"DELETE {REACTION}")
    async def _unreact(self, call: Call) -> None:
        reactions = self._message_of(call).reactions
        if call.params["emoji"] in reactions:
            reactions.remove(call.params["emoji"])

    @route("typing", "POST /channels/{channel_id}/typing")
    async def _typing(self, call: Call) -> None:
        channel = self._channel_of(call)
        self._require(channel, "send_messages")
        self.typing[channel.id] += 1

    @route("channel", "GET /channels/{channel_id}")
    async def _get_channel(self, call: Call) -> Payload:
        return self._channel_of(call).payload()

    @route("thread", "POST /channels/{channel_id}/threads", f"POST {MESSAGE}/threads")
    async def _start_thread(self, call: Call) -> Payload:
        channel = self._channel_of(call)
        self._require(channel, "create_public_threads")
        return (await self.add_thread(channel.id, call.payload["name"])).payload()

    @route("dm", "POST /users/@me/channels")
    async def _open_dm(self, call: Call) -> Payload:
        return self.open_dm(int(call.payload["recipient_id"])).payload()

    @route("guild", "GET /guilds/{guild_id}")
    async def _get_guild(self, call: Call) -> Payload:
        guild = self.guilds.get(call.id("guild_id"))
        if guild is None:
            raise ApiError(404, 10004, "Unknown Guild")
        return self._guild_payload(guild)

    @route("member", "GET /guilds/{guild_id}/members/{user_id}")
    async def _get_member(self, call: Call) -> Payload:
        guild = self.guilds[call.id("guild_id")]
        user = self.users.get(call.id("user_id"))
        if user is None or user.id not in guild.members:
            raise ApiError(404, 10007, "Unknown Member")
        return self._member_payload(guild, user)

    @route("me", "GET /users/@me")
    async def _get_me(self, call: Call) -> Payload:
        return self.bot.payload()

    @route("user", "GET /users/{user_id}")
    async def _get_user(self, call: Call) -> Payload:
        if user := self.users.get(call.id("user_id")):
            return user.payload()
        raise ApiError(404, 10013, "Unknown User")

    @route("application", "GET /oauth2/applications/@me", "GET /applications/@me")
    async def _get_application(self, call: Call) -> Payload:
        return {
            "id": str(self.bot.id),
            "name": self.bot.name,
            "description": "",
            "icon": None,
            "bot_public": False,
            "bot_require_code_grant": False,
            "owner": self.owner.payload(),
            "verify_key": "",
            "flags": self._portal_flags,
        }

    @route("get_gateway", "GET /gateway", "GET /gateway/bot")
    async def _get_gateway(self, call: Call) -> Payload:
        start_limit = {"total": 1000, "remaining": 999, "reset_after": 0}
        start_limit["max_concurrency"] = 1
        return {
            "url": self.gateway_url,
            "shards": 1,
            "session_start_limit": start_limit,
        }

    async def _unknown(self, call: Call) -> None:
        self.unknown.append(self.requests[-1].method + " " + self.requests[-1].path)
        raise ApiError(404, 0, "404: Not Found")

    # --- HTTP: faults, bodies, answers ---

    def _next_fault(self, kind: str) -> Fault | None:
        for fault in self._faults:
            if fault.kind in (kind, "*") and fault.hits < fault.times:
                fault.hits += 1
                return fault
        return None

    def _endpoint(
        self, kind: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """What aiohttp calls for a route: reads, applies faults, handles, answers."""

        async def serve(request: web.Request) -> web.StreamResponse:
            upload = kind == "send" and request.content_type == "multipart/form-data"
            now, my_kind = time.monotonic(), "upload" if upload else kind
            self.requests.append(Request(my_kind, request.method, request.path, now))
            fault = self._next_fault(my_kind)
            self._notify()
            if fault and fault.action == "reset":
                return reset(request)
            call = await read_call(request)
            if fault and isinstance(fault.action, int):
                return fault_answer(fault.action, fault.retry_after_s)
            if fault and fault.action == "hang":
                await fault.hold()
                if request.transport is None or request.transport.is_closing():
                    return web.Response()  # nobody is there to read it
            try:
                self._check_token(request)
                response = answer(200, await handler(self, call))
            except ApiError as error:
                response = answer(error.status, error.body)
            self._notify()
            if fault and fault.action == "lost_answer":
                return reset(request)
            if fault and fault.action == "hang_answer":
                await fault.hold()
            if self.burst:
                response.headers["X-RateLimit-Limit"] = str(self.burst)
                response.headers["X-RateLimit-Remaining"] = str(self.burst - 1)
                response.headers["X-RateLimit-Reset-After"] = "0.1"
            return response

        return serve

    def _check_token(self, request: web.Request) -> None:
        by_url = ("/api/v10/webhooks/", "/api/v10/interactions/")
        given = request.headers.get("Authorization")
        if given != f"Bot {self.token}" and not request.path.startswith(by_url):
            raise ApiError(401, 0, "401: Unauthorized")

    async def _download(self, request: web.Request) -> web.StreamResponse:
        wanted = int(request.match_info["file_id"])
        files = (file for m in self.all_messages.values() for file in m.files)
        found = next((file for file in files if file.id == wanted), None)
        return web.Response(body=found.data) if found else web.Response(status=404)

    async def _control(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        if name.startswith("_") or not hasattr(self, name):
            raise web.HTTPNotFound
        result = getattr(self, name)
        if callable(result):
            result = result(**(await request.json()))
        if asyncio.iscoroutine(result):
            result = await result
        return answer(200, plain(result))


def walk(components: list[Payload]) -> Iterator[Payload]:
    """Every component, those inside rows and containers too."""
    for component in components:
        yield component
        yield from walk(component.get("components", []))


def check_limits(payload: Payload, files: int) -> None:
    """Raises what Discord answers to too much text, embeds or files."""
    embeds = payload.get("embeds") or []
    lengths = [("content", len(payload.get("content") or ""), 2000)]
    lengths += [("nonce", len(payload.get("nonce") or ""), 25)]
    lengths += [("attachments", files, 10), ("embeds", len(embeds), 10)]
    total = 0
    for embed in embeds:
        fields = embed.get("fields", [])
        texts = {name: len(embed.get(name) or "") for name in ("title", "description")}
        texts["footer"] = len(embed.get("footer", {}).get("text", ""))
        total += sum(texts.values())
        total += sum(len(item["name"]) + len(item["value"]) for item in fields)
        lengths += [("embeds", texts["title"], 256), ("embeds", len(fields), 25)]
        lengths += [("embeds", texts["description"], 4096)]
    lengths += [("embeds", total, 6000)]
    for name, length, most in lengths:
        if length > most:
            raise ApiError(400, 50035, f"Must be {most} or fewer in length.", name)


async def read_call(request: web.Request) -> Call:
    payload: Any = None
    files: Files = []
    if request.content_type == "multipart/form-data":
        form = await request.post()
        payload = json.loads(str(form["payload_json"]))
        for part in form.values():
            if isinstance(part, web.FileField):
                files.append((part.filename, part.file.read()))
    elif body := await request.read():
        payload = json.loads(body)
    return Call(request.match_info, request.query, payload, files)


def answer(status: int, data: Any) -> web.Response:
    if data is None:
        return web.Response(status=204)
    body = json.dumps(data).encode()
    # Bytes, because a text would add a charset, and discord.py would not parse that.
    return web.Response(status=status, body=body, content_type="application/json")


def fault_answer(status: int, retry_after_s: float) -> web.Response:
    if status == 429:
        data = {"message": "You are being rate limited.", "retry_after": retry_after_s}
        response = answer(429, data | {"global": False})
        response.headers["Via"] = "1.1 google"  # without it, it is Cloudflare's
        return response
    if status > 500:  # from the proxy before Discord
        return web.Response(status=status, text="<html></html>")
    return answer(status, {"message": f"{status}: injected", "code": 0})


def reset(request: web.Request) -> web.Response:
    """Resets the connection; what it returns goes nowhere."""
    transport = request.transport
    if transport:
        connection = transport.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)  # close with RST, not FIN
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def plain(value: Any) -> Any:
    """JSON for /control/."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Channel | User):
        return value.payload()
    return value.record() if hasattr(value, "record") else value


async def serve_forever(port: int, token: str) -> None:
    async with FakeDiscord(port, token) as fake:
        facts = {"url": fake.url, "token": fake.token, "bot_id": fake.bot.id}
        facts |= {"guild_id": fake.guild.id, "channel_id": fake.channel.id}
        facts |= {"member_id": fake.member.id, "owner_id": fake.owner.id}
        print(json.dumps(facts), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--token", default="fake.discord.token")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_forever(options.port, options.token))
