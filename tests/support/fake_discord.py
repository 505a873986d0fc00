"""A small Discord on loopback: gateway, REST, the rules that bots run into, and faults.

The real discord.py talks to it over real sockets; only two addresses are changed:

    async with FakeDiscord() as fake:
        with fake.redirect():
            ...start a bot with fake.token...
            await fake.wait_for(lambda: fake.connected)
            await fake.member_says(fake.channel.id, "$ping")
            await fake.wait_for(lambda: fake.messages(fake.channel.id, bot_only=True))

A bot in a process of its own is started through `run_redirected.py`. Handlers are
declared with `@route(kind, ...)`, and `fault(kind, ...)` breaks them.
"""

import asyncio
import contextlib
import json
import re
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal, Self

import discord
import yarl
from aiohttp import web
from discord.gateway import DiscordWebSocket
from discord.http import Route

Payload = dict[str, Any]
WebSocket = web.WebSocketResponse
Files = list[tuple[str, bytes]]  # name and content
Action = int | Literal["reset", "lost_answer", "hang", "hang_answer"]

MIB = 1024 * 1024
# Discord, 2026-09: limit of one file by boost tier; direct messages have tier 0.
UPLOAD_LIMITS_BYTES = [20 * MIB, 20 * MIB, 50 * MIB, 100 * MIB]
TEXT, DM, THREAD = 0, 1, 11  # channel types
PLAIN, REPLY = 0, 19  # message types
ANSWER, DEFER = 4, 5  # callback types
GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 9, 1 << 12, 1 << 15  # intents
EVERYBODY_MAY = str(discord.Permissions.all_channel().value)
# What a message looks like to a bot without the intent that does not concern it.
HIDDEN: Payload = {"content": "", "embeds": [], "components": [], "attachments": []}


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

    def member(self, user: User) -> Payload:
        return {
            "user": user.payload(),
            "roles": [],
            "joined_at": discord.utils.snowflake_time(self.id).isoformat(),
            "flags": 0,
        }


@dataclass(eq=False)
class Channel:
    """A text channel, a direct message channel or a thread."""

    id: int
    name: str = ""
    guild: Guild | None = None
    parent: Self | None = None
    recipient: User | None = None
    denied: set[str] = field(default_factory=set)  # permissions
    denied_to: dict[int, set[str]] = field(default_factory=dict)  # by member

    @property
    def upload_limit_bytes(self) -> int:
        if self.guild is None:
            return UPLOAD_LIMITS_BYTES[0]
        tier_limit = UPLOAD_LIMITS_BYTES[self.guild.premium_tier]
        return self.guild.upload_limit_bytes or tier_limit

    def payload(self) -> Payload:
        if self.guild is None:
            assert self.recipient
            recipients = [self.recipient.payload()]
            return {"id": str(self.id), "type": DM, "recipients": recipients}
        data: Payload = {"id": str(self.id), "name": self.name}
        data["guild_id"] = str(self.guild.id)
        if self.parent is None:
            denials = [(self.guild.id, 0, self.denied)]
            denials += [(id, 1, denied) for id, denied in self.denied_to.items()]
            overwrites = [
                {"id": str(id), "type": kind, "allow": "0", "deny": str(bits(denied))}
                for id, kind, denied in denials
            ]
            data |= {"type": TEXT, "position": 0}
            return data | {"permission_overwrites": overwrites}
        created_at = discord.utils.snowflake_time(self.id)
        return data | {
            "type": THREAD,
            "parent_id": str(self.parent.id),
            "owner_id": str(self.guild.owner.id),
            "message_count": 0,
            "member_count": 1,
            "thread_metadata": {
                "archived": False,
                "auto_archive_duration": 1440,
                "archive_timestamp": created_at.isoformat(),
            },
        }


def bits(permissions: Iterable[str]) -> int:
    """Permissions as Discord writes them."""
    return discord.Permissions(**dict.fromkeys(permissions, True)).value


@dataclass(eq=False)
class StoredFile:
    id: int
    filename: str
    data: bytes

    def payload(self) -> Payload:
        url = f"https://cdn.invalid/{self.id}/{self.filename}"
        return {
            "id": str(self.id),
            "filename": self.filename,
            "size": len(self.data),
            "url": url,
            "proxy_url": url,
        }


@dataclass(eq=False)
class Message:
    id: int
    channel: Channel
    author: User
    nonce: str | None = None
    content: str = ""
    embeds: list[Payload] = field(default_factory=list)
    components: list[Payload] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)  # the contents, the newest last
    files: list[StoredFile] = field(default_factory=list)
    replied_to: Self | None = None
    allowed_mentions: Payload | None = None  # as the bot sent it
    mentions: list[User] = field(default_factory=list)  # who was really pinged
    mention_roles: list[str] = field(default_factory=list)
    mention_everyone: bool = False
    deleted: bool = False

    @property
    def created_at(self) -> datetime:
        return discord.utils.snowflake_time(self.id)

    def payload(self) -> Payload:
        data: Payload = {
            "id": str(self.id),
            "channel_id": str(self.channel.id),
            "author": self.author.payload(),
            "content": self.content,
            "embeds": self.embeds,
            "components": self.components,
            "attachments": [file.payload() for file in self.files],
            "timestamp": self.created_at.isoformat(),
            "edited_timestamp": None,
            "type": REPLY if self.replied_to else PLAIN,
            "mentions": [user.payload() for user in self.mentions],
            "mention_roles": self.mention_roles,
            "mention_everyone": self.mention_everyone,
        }
        if self.replied_to:
            data["message_reference"] = {
                "message_id": str(self.replied_to.id),
                "channel_id": str(self.channel.id),
            }
        return data


@dataclass(eq=False)
class Fault:
    """What the next `times` requests of a kind meet; `hits` counts them."""

    kind: str
    action: Action
    times: int = 1
    retry_after_s: float = 0.05  # of a 429
    code: int = 0  # Discord's own, of any other status
    for_s: float | None = None  # of a hang; None: until release()
    hits: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self._released.set()

    async def hold(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), self.for_s)


class ApiError(Exception):
    """A refusal, in Discord's words."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: Payload = {"code": code, "message": message}


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


# --- The gateway: a connection comes and goes, a session stays ------------------------


async def send(websocket: WebSocket, op: int, data: Any = None, **extra: Any) -> None:
    """Sends one packet; a packet to a dead connection is lost."""
    packet = {"op": op, "d": data, "s": None, "t": None} | extra
    with contextlib.suppress(ConnectionError, RuntimeError):
        await websocket.send_json(packet)


@dataclass(eq=False)
class Session:
    """What RESUME goes back to: every event so far, and the connection if any."""

    id: str
    intents: int
    events: list[tuple[str, Payload]] = field(default_factory=list)
    websocket: WebSocket | None = None

    async def dispatch(self, event: str, data: Payload) -> None:
        self.events.append((event, data))
        if self.websocket:
            await send(self.websocket, 0, data, s=len(self.events), t=event)

    async def attach(self, websocket: WebSocket, seen: int = 0) -> None:
        """Sends what came after event number `seen`, then everything as it comes."""
        while seen < len(self.events):
            event, data = self.events[seen]
            seen += 1
            await send(websocket, 0, data, s=seen, t=event)
        self.websocket = websocket


# --- The server -----------------------------------------------------------------------

Handler = Callable[["FakeDiscord", Call], Awaitable[Any]]
ROUTES: list[tuple[str, str, str, Handler]] = []


def route(kind: str, method: str, path: str) -> Callable[[Handler], Handler]:
    """Serves the path with what it decorates."""

    def keep(handler: Handler) -> Handler:
        ROUTES.append((kind, method, path, handler))
        return handler

    return keep


class FakeDiscord:
    """The server; starts with one guild, its owner, a member, a channel and the bot."""

    def __init__(self) -> None:
        self.token = "fake.discord.token"
        self.url = self.gateway_url = ""  # known once entered
        self.message_content_allowed = True  # the switch in the developer portal
        self.ack_heartbeats = True
        self.heartbeat_interval_s = 41.25
        self.nonce_window_s = 300.0
        self.shows_history = True  # else what was posted is not to be seen yet
        self.request_limit_bytes = 25 * MIB  # of several files together
        self.sessions: Counter[str] = Counter()  # connect, identify, resume, heartbeat
        self.requests: list[Request] = []
        self.commands: dict[str, Payload] = {}  # by name
        self.users: dict[int, User] = {}
        self.guilds: list[Guild] = []
        self.channels: dict[int, Channel] = {}
        self.all_messages: dict[int, Message] = {}  # deleted ones too
        self._changed = asyncio.Event()
        self._last_id = 0
        self._faults: list[Fault] = []
        self._interactions: dict[str, Channel] = {}  # by token
        self._answered: set[str] = set()  # their tokens
        self._sessions: dict[str, Session] = {}
        self.bot = self.add_member("Boss-Bot", bot=True)
        self.owner = self.add_member("olga")
        self.member = self.add_member("mary")
        self.guild = self._new_guild("Home")
        self.channel = self._new_channel("general", guild=self.guild)

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=0)
        add = application.router.add_route
        for kind, method, path, handler in ROUTES:
            add(method, f"/api/v10{path}", partial(self._serve, kind, handler))
        add("GET", "/gateway", self._gateway)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        address = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self.url, self.gateway_url = f"http://{address}", f"ws://{address}/gateway"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    @property
    def connected(self) -> list[Session]:
        """The sessions with a live connection."""
        return [s for s in self._sessions.values() if s.websocket]

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
        """Returns what `predicate` returns once it is true; asks at every change."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (result := predicate()):
                    await self._changed.wait()
        except TimeoutError:
            asked = [f"{r.method} {r.path} ({r.kind})" for r in self.requests[-5:]]
            said = [m.versions for m in list(self.all_messages.values())[-3:]]
            text = f"not within {timeout_s} s; requests: {asked}; messages: {said}"
            raise TimeoutError(text) from None
        return result

    async def settle(self) -> None:
        """Returns once the bot has read what was sent to it; its work may go on."""
        async with asyncio.timeout(10):
            # Several in turn: answers on its other connections have arrived by then.
            for _ in range(3):
                enough = self.sessions["heartbeat"] + len(self.connected)
                await self._send_to_all(1)
                while self.connected and self.sessions["heartbeat"] < enough:
                    await self._changed.wait()

    # --- What a test does: people, places, faults ---

    def add_member(self, name: str, bot: bool = False) -> User:
        """A member of every guild."""
        user = User(self._new_id(), name, bot)
        self.users[user.id] = user
        return user

    async def add_guild(self, name: str, premium_tier: int = 0) -> Channel:
        """The first channel of a new guild that the bot and everybody has joined."""
        guild = self._new_guild(name, premium_tier)
        channel = self._new_channel("general", guild=guild)
        await self._emit("GUILD_CREATE", self._guild_payload(guild))
        return channel

    async def add_thread(self, parent_id: int, name: str) -> Channel:
        parent = self.channels[parent_id]
        thread = self._new_channel(name, guild=parent.guild, parent=parent)
        await self._emit("THREAD_CREATE", thread.payload() | {"newly_created": True})
        return thread

    def open_dm(self, user_id: int) -> Channel:
        """The direct message channel of the bot and that user."""
        user = self.users[user_id]
        for channel in self.channels.values():
            if channel.recipient is user:
                return channel
        return self._new_channel("", recipient=user)

    async def deny(self, channel_id: int, *permissions: str) -> None:
        """Denies exactly these permissions in the channel; none lifts it."""
        channel = self.channels[channel_id]
        channel.denied = set(permissions)
        await self._emit("CHANNEL_UPDATE", channel.payload())

    async def deny_member(
        self, channel_id: int, user_id: int, *permissions: str
    ) -> None:
        """The same for one member."""
        channel = self.channels[channel_id]
        channel.denied_to[user_id] = set(permissions)
        await self._emit("CHANNEL_UPDATE", channel.payload())

    async def set_premium_tier(self, tier: int) -> None:
        self.guild.premium_tier = tier
        await self._emit("GUILD_UPDATE", self._guild_payload(self.guild))

    async def member_says(
        self,
        channel_id: int,
        content: str,
        user_id: int | None = None,
        reply_to: int = 0,
    ) -> Message:
        author = self.users[user_id or self.member.id]
        channel = self.channels[channel_id]
        payload: Payload = {"content": content}
        if reply_to:
            payload["message_reference"] = {"message_id": str(reply_to)}
        return await self._post(channel, author, payload, [])

    async def slash(
        self, channel_id: int, name: str, options: Mapping[str, str] | None = None
    ) -> int:
        """The member uses a command of the bot; returns the interaction's id."""
        channel, token = self.channels[channel_id], secrets.token_hex(16)
        assert channel.guild, "no commands in direct messages here"
        self._interactions[token], interaction_id = channel, self._new_id()
        place = channel.parent or channel
        denied = place.denied | place.denied_to.get(self.member.id, set())
        may = int(EVERYBODY_MAY) & ~bits(denied)
        given = [
            {"name": option, "type": 3, "value": value}
            for option, value in (options or {}).items()
        ]
        event: Payload = {
            "id": str(interaction_id),
            "application_id": str(self.bot.id),
            "type": 2,
            "guild_id": str(channel.guild.id),
            "member": channel.guild.member(self.member) | {"permissions": str(may)},
            "data": self.commands[name] | {"options": given},
            "token": token,
            "version": 1,
            "channel": channel.payload(),
            "attachment_size_limit": UPLOAD_LIMITS_BYTES[0],  # the asker's own
        }
        await self._emit("INTERACTION_CREATE", event)
        return interaction_id

    def messages(self, channel_id: int, bot_only: bool = False) -> list[Message]:
        """What stands in the channel, oldest first."""
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
        await self._emit("MESSAGE_DELETE", data)

    async def delete_channel(self, channel_id: int) -> None:
        channel = self.channels.pop(channel_id)
        await self._emit("CHANNEL_DELETE", channel.payload())

    def fault(self, kind: str, action: Action, times: int = 1, **how: Any) -> Fault:
        """Breaks the next requests of a kind, after faults set before.

        Args:
            kind: "upload" (post with files), "send" (post without), "edit", "callback",
                "followup", or what else `@route` names.
            action: a status: nothing is done and it is answered (429 with
                `retry_after_s`); "reset": nothing is done, the connection is reset;
                "lost_answer": done, then reset; "hang": held for `for_s` or until
                `release()`, then done unless the client has gone; "hang_answer": done,
                then the answer is held.
            how: `retry_after_s`, `code` and `for_s`.
        """
        kinds = {"upload"} | {known for known, *_ in ROUTES}
        if kind not in kinds:
            raise ValueError(f"{kind!r} is none of {sorted(kinds)}")
        fault = Fault(kind, action, times, **how)
        self._faults.append(fault)
        return fault

    async def drop_gateway(self, code: int | None = None) -> None:
        """Closes the gateway's connections: with a code, or as a cut cable would."""
        for session in self.connected:
            websocket, session.websocket = session.websocket, None
            assert websocket
            if code is None:
                websocket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
            else:
                await websocket.close(code=code)
        self._notify()

    async def reconnect_op7(self) -> None:
        await self._send_to_all(7)

    async def invalid_session(self, resumable: bool) -> None:
        await self._send_to_all(9, resumable)
        if not resumable:
            self._sessions.clear()

    # --- State ---

    def _new_id(self) -> int:
        """A snowflake of now, larger than any before."""
        now = discord.utils.time_snowflake(datetime.now(UTC))
        self._last_id = max(now, self._last_id + 1)
        return self._last_id

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _new_guild(self, name: str, premium_tier: int = 0) -> Guild:
        guild = Guild(self._new_id(), name, self.owner, premium_tier)
        self.guilds.append(guild)
        return guild

    def _new_channel(self, name: str, **where: Any) -> Channel:
        channel = Channel(self._new_id(), name, **where)
        self.channels[channel.id] = channel
        return channel

    def _guild_payload(self, guild: Guild) -> Payload:
        """The guild as in GUILD_CREATE: of its members only the bot."""
        here = [c for c in self.channels.values() if c.guild is guild]
        everyone = {"id": str(guild.id), "name": "@everyone", "position": 0}
        return {
            "id": str(guild.id),
            "name": guild.name,
            "owner_id": str(guild.owner.id),
            "premium_tier": guild.premium_tier,
            "member_count": len(self.users),
            "unavailable": False,
            "roles": [everyone | {"permissions": EVERYBODY_MAY}],
            "members": [guild.member(self.bot)],
            "channels": [c.payload() for c in here if not c.parent],
            "threads": [c.payload() for c in here if c.parent],
        }

    def _channel_of(self, call: Call, *permissions: str) -> Channel:
        """The channel of a request that needs these permissions there."""
        channel = self.channels.get(call.id("channel_id"))
        if channel is None:
            raise ApiError(404, 10003, "Unknown Channel")
        denied = (channel.parent or channel).denied
        if "view_channel" in denied:
            raise ApiError(403, 50001, "Missing Access")
        if denied.intersection(permissions):
            raise ApiError(403, 50013, "Missing Permissions")
        return channel

    async def _post(
        self, channel: Channel, author: User, payload: Payload, files: Files
    ) -> Message:
        message = Message(self._new_id(), channel, author, payload.get("nonce"))
        self._write(message, payload, files)
        self.all_messages[message.id] = message
        await self._emit_message("MESSAGE_CREATE", message)
        return message

    def _write(self, message: Message, payload: Payload, files: Files) -> None:
        """Puts what was sent into a new or older message, if it is within the rules."""
        check_limits(payload, len(files))
        sizes = [len(data) for _, data in files]
        too_large = max(sizes, default=0) > message.channel.upload_limit_bytes
        too_many = len(sizes) > 1 and sum(sizes) > self.request_limit_bytes
        if too_large or too_many:
            raise ApiError(413, 40005, "Request entity too large")
        message.content = payload.get("content", message.content) or ""
        message.embeds = payload.get("embeds", message.embeds) or []
        message.components = payload.get("components", message.components) or []
        shown = message.content or message.embeds or message.components
        if not (shown or files or message.files):
            raise ApiError(400, 50006, "Cannot send an empty message")
        if reference := payload.get("message_reference"):
            message.replied_to = self._referenced(message.channel, reference)
        message.versions.append(message.content)
        message.files += [StoredFile(self._new_id(), *file) for file in files]
        message.allowed_mentions = payload.get("allowed_mentions")
        self._ping(message)

    def _referenced(self, channel: Channel, reference: Payload) -> Message | None:
        message = self.all_messages.get(int(reference["message_id"]))
        if message and not message.deleted and message.channel is channel:
            return message
        if reference.get("fail_if_not_exists", True):
            raise ApiError(400, 50035, "Invalid Form Body: unknown message_reference")
        return None  # Discord sends it as no reply

    def _ping(self, message: Message) -> None:
        """Decides who is pinged: what the text names and `allowed_mentions` allows."""
        text, allowed = message.content, message.allowed_mentions
        if allowed is None:
            everything = ["users", "roles", "everyone"]
            allowed = {"parse": everything, "replied_user": True}
        parse = allowed.get("parse", [])
        users = {int(id) for id in re.findall(r"<@!?(\d+)>", text)}
        if "users" not in parse:
            users &= {int(id) for id in allowed.get("users", [])}
        if message.replied_to and allowed.get("replied_user"):
            users.add(message.replied_to.author.id)
        message.mentions = [self.users[id] for id in sorted(users) if id in self.users]
        roles = re.findall(r"<@&(\d+)>", text)
        message.mention_roles = roles if "roles" in parse else []
        loud = bool(re.search("@everyone|@here", text))
        message.mention_everyone = loud and "everyone" in parse

    # --- Gateway ---

    async def _send_to_all(self, op: int, data: Any = None) -> None:
        for session in self.connected:
            assert session.websocket
            await send(session.websocket, op, data)

    async def _emit(self, event: str, data: Payload) -> None:
        for session in list(self._sessions.values()):
            await session.dispatch(event, data)
        self._notify()

    async def _emit_message(self, event: str, message: Message) -> None:
        """Sends it to the sessions that listen; what they may not read is hidden."""
        guild, data = message.channel.guild, message.payload()
        if guild:
            member = guild.member(message.author)
            data |= {"guild_id": str(guild.id), "member": member}
        intent = GUILD_MESSAGES if guild else DIRECT_MESSAGES
        concerned = message.author is self.bot or self.bot in message.mentions
        for session in list(self._sessions.values()):
            visible = not guild or concerned or session.intents & MESSAGE_CONTENT
            if session.intents & intent:
                await session.dispatch(event, data if visible else data | HIDDEN)
        self._notify()

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        websocket, session = WebSocket(max_msg_size=0), None
        await websocket.prepare(request)
        self._count("connect")
        interval_ms = self.heartbeat_interval_s * 1000
        await send(websocket, 10, {"heartbeat_interval": interval_ms})
        async for frame in websocket:
            packet = frame.json()
            if packet["op"] == 1:
                self._count("heartbeat")
                if self.ack_heartbeats:
                    await send(websocket, 11)
            elif packet["op"] == 2:
                session = await self._identify(websocket, packet["d"])
            elif packet["op"] == 6:
                session = await self._resume(websocket, packet["d"])
        if session and session.websocket is websocket:
            session.websocket = None
            if websocket.close_code in (1000, 1001):  # the bot took its leave
                self._sessions.pop(session.id, None)
        self._notify()
        return websocket

    def _count(self, what: str) -> None:
        self.sessions[what] += 1
        self._notify()

    async def _identify(self, websocket: WebSocket, data: Payload) -> Session | None:
        if data["token"] != self.token:
            await websocket.close(code=4004)
            return None
        if data["intents"] & MESSAGE_CONTENT and not self.message_content_allowed:
            await websocket.close(code=4014)
            return None
        session = Session(secrets.token_hex(8), data["intents"])
        ready = {
            "user": self.bot.payload(),
            "guilds": [{"id": str(g.id), "unavailable": True} for g in self.guilds],
            "session_id": session.id,
            "resume_gateway_url": self.gateway_url,
            "shard": data.get("shard", [0, 1]),
        }
        session.events.append(("READY", ready))
        for guild in self.guilds:
            session.events.append(("GUILD_CREATE", self._guild_payload(guild)))
        self._sessions[session.id] = session
        await session.attach(websocket)
        self._count("identify")
        return session

    async def _resume(self, websocket: WebSocket, data: Payload) -> Session | None:
        session = self._sessions.get(data["session_id"])
        if session is None:
            await send(websocket, 9, False)
            return None
        await session.attach(websocket, data["seq"])
        await session.dispatch("RESUMED", {})
        self._count("resume")
        return session

    @route("gateway", "GET", "/gateway/bot")
    async def _get_gateway(self, call: Call) -> Payload:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0}
        limit |= {"max_concurrency": 1}
        return {"url": self.gateway_url, "shards": 1, "session_start_limit": limit}

    # --- Commands ---

    @route("commands", "PUT", "/applications/{application_id}/commands")
    async def _put_commands(self, call: Call) -> list[Payload]:
        about = {"type": 1, "description": "", "application_id": str(self.bot.id)}
        self.commands = {
            command["name"]: about | command | {"id": str(self._new_id())}
            for command in call.payload
        }
        return list(self.commands.values())

    @route("callback", "POST", "/interactions/{interaction_id}/{token}/callback")
    async def _callback(self, call: Call) -> Payload:
        token, kind, message = call.params["token"], call.payload["type"], None
        assert kind in (ANSWER, DEFER), "the fake knows no other"
        if token in self._answered:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        if kind == ANSWER:
            message = await self._answer(token, call.payload["data"], call.files)
        self._answered.add(token)
        about = {"id": call.params["interaction_id"], "type": 2}
        return {"interaction": about, "resource": {"type": kind, "message": message}}

    @route("followup", "POST", "/webhooks/{application_id}/{token}")
    async def _follow_up(self, call: Call) -> Payload:
        return await self._answer(call.params["token"], call.payload, call.files)

    async def _answer(self, token: str, payload: Payload, files: Files) -> Payload:
        channel = self._interactions[token]
        return (await self._post(channel, self.bot, payload, files)).payload()

    # --- Messages, channels and the rest of REST ---

    @route("send", "POST", "/channels/{channel_id}/messages")
    async def _send(self, call: Call) -> Payload:
        needed = ["send_messages", "attach_files"] if call.files else ["send_messages"]
        channel, payload = self._channel_of(call, *needed), call.payload
        if channel.recipient and not channel.recipient.accepts_dms:
            raise ApiError(403, 50007, "Cannot send messages to this user")
        nonce = payload.get("nonce")
        if nonce and payload.get("enforce_nonce"):
            since = datetime.now(UTC) - timedelta(seconds=self.nonce_window_s)
            for earlier in self.all_messages.values():
                same = earlier.channel is channel and earlier.nonce == nonce
                if same and earlier.created_at > since:
                    return earlier.payload()
        message = await self._post(channel, self.bot, payload, call.files)
        return message.payload()

    @route("history", "GET", "/channels/{channel_id}/messages")
    async def _get_history(self, call: Call) -> list[Payload]:
        channel, query = self._channel_of(call), call.query
        limit, after = int(query.get("limit", 50)), int(query.get("after", 0))
        found = [m for m in self.messages(channel.id) if m.id > after]
        found = found if self.shows_history else []
        page = found[:limit] if after else found[-limit:]
        return [message.payload() for message in reversed(page)]

    @route("message", "GET", "/channels/{channel_id}/messages/{message_id}")
    async def _get_message(self, call: Call) -> Payload:
        channel = self._channel_of(call)
        message = self.all_messages.get(call.id("message_id"))
        if message is None or message.deleted or message.channel is not channel:
            raise ApiError(404, 10008, "Unknown Message")
        return message.payload()

    @route("edit", "PATCH", "/channels/{channel_id}/messages/{message_id}")
    async def _edit(self, call: Call) -> Payload:
        self._channel_of(call)
        message = self.all_messages.get(call.id("message_id"))
        if message is None or message.deleted or message.author is not self.bot:
            raise ApiError(404, 10008, "Unknown Message")
        self._write(message, call.payload, call.files)
        await self._emit_message("MESSAGE_UPDATE", message)
        return message.payload()

    @route("channel", "GET", "/channels/{channel_id}")
    async def _get_channel(self, call: Call) -> Payload:
        return self._channel_of(call).payload()

    @route("dm", "POST", "/users/@me/channels")
    async def _open_dm(self, call: Call) -> Payload:
        return self.open_dm(int(call.payload["recipient_id"])).payload()

    @route("me", "GET", "/users/@me")
    async def _get_me(self, call: Call) -> Payload:
        return self.bot.payload()

    @route("user", "GET", "/users/{user_id}")
    async def _get_user(self, call: Call) -> Payload:
        return self.users[call.id("user_id")].payload()

    @route("application", "GET", "/oauth2/applications/@me")
    async def _get_application(self, call: Call) -> Payload:
        return {
            "id": str(self.bot.id),
            "name": self.bot.name,
            "description": "",
            "icon": None,
            "bot_public": False,
            "bot_require_code_grant": False,
            "flags": 1 << 19 if self.message_content_allowed else 0,
            "owner": self.owner.payload(),
            "verify_key": "",
        }

    @route("unknown", "*", "/{rest:.*}")  # the last one: the others come first
    async def _unknown(self, call: Call) -> None:
        raise ApiError(404, 0, "404: Not Found")

    # --- HTTP: faults, bodies, answers ---

    async def _serve(
        self, kind: str, handler: Handler, request: web.Request
    ) -> web.StreamResponse:
        """What aiohttp calls for a route: reads, applies faults, handles, answers."""
        if kind == "send" and request.content_type == "multipart/form-data":
            kind = "upload"
        arrived = Request(kind, request.method, request.path, time.monotonic())
        self.requests.append(arrived)
        waiting = (f for f in self._faults if f.kind == kind and f.hits < f.times)
        if fault := next(waiting, None):
            fault.hits += 1
        self._notify()
        if fault and fault.action == "reset":
            return reset(request)
        call = await read_call(request)
        if fault and isinstance(fault.action, int):
            return fault_answer(fault.action, fault.retry_after_s, fault.code)
        if fault and fault.action == "hang":
            await fault.hold()
            if request.transport is None or request.transport.is_closing():
                return web.Response()  # nobody is there to read it
        try:
            # The routes with an interaction's token in the path send no header.
            wanted = f"Bot {self.token}"
            if request.headers.get("Authorization", wanted) != wanted:
                raise ApiError(401, 0, "401: Unauthorized")
            response = answer(200, await handler(self, call))
        except ApiError as error:
            response = answer(error.status, error.body)
        self._notify()
        if fault and fault.action == "lost_answer":
            return reset(request)
        if fault and fault.action == "hang_answer":
            await fault.hold()
        # Without these, discord.py sends one request at a time per route and channel.
        response.headers["X-RateLimit-Limit"] = "5"
        response.headers["X-RateLimit-Remaining"] = "4"
        response.headers["X-RateLimit-Reset-After"] = "0.1"
        return response


def check_limits(payload: Payload, file_count: int) -> None:
    """Raises what Discord answers to too much text or too many files."""
    lengths = [
        ("content", len(payload.get("content") or ""), 2000),
        ("nonce", len(payload.get("nonce") or ""), 25),
        ("attachments", file_count, 10),
    ]
    for embed in payload.get("embeds") or []:
        lengths.append(("embeds", len(embed.get("description") or ""), 4096))
    for name, length, most in lengths:
        if length > most:
            text = f"Invalid Form Body: {name} must be {most} or fewer in length."
            raise ApiError(400, 50035, text)


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
    body = json.dumps(data).encode()
    # Bytes, because a text would add a charset, and discord.py would not parse that.
    return web.Response(status=status, body=body, content_type="application/json")


def fault_answer(status: int, retry_after_s: float, code: int = 0) -> web.Response:
    if status == 429:
        data = {"message": "You are being rate limited.", "retry_after": retry_after_s}
        response = answer(429, data | {"global": False})
        response.headers["Via"] = "1.1 google"  # without it, it is Cloudflare's
        return response
    if status > 500:  # from the proxy before Discord
        return web.Response(status=status, text="<html></html>")
    return answer(status, {"message": f"{status}: injected", "code": code})


def reset(request: web.Request) -> web.Response:
    """Resets the connection; what it returns goes nowhere."""
    transport = request.transport
    if transport:
        connection = transport.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)  # close with RST, not FIN
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()
