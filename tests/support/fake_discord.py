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
import mimetypes
import re
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
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
TEXT, DM, VOICE, THREAD = 0, 1, 2, 11  # channel types
PLAIN, REPLY = 0, 19  # message types
COMMAND, COMPONENT, AUTOCOMPLETE = 2, 3, 4  # interaction types
SUBCOMMAND, SUBCOMMAND_GROUP = 1, 2  # option types; the others are values
OPTION_KINDS = {6: "users", 7: "channels", 8: "roles"}  # those given as ids
# Callback types: a message, one that comes later, the same for the message that was
# clicked, which is changed, and the choices of an autocomplete.
ANSWER, DEFER, DEFER_CHANGE, CHANGE, CHOICES = 4, 5, 6, 7, 8
BUTTON, SELECT = 2, 3  # component types
EPHEMERAL, SUPPRESS_EMBEDS = 1 << 6, 1 << 2  # message flags
# Intents.
GUILD_MESSAGES, GUILD_REACTIONS = 1 << 9, 1 << 10
DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 12, 1 << 15
EVERYBODY_MAY = (
    *("view_channel", "send_messages", "send_messages_in_threads", "embed_links"),
    *("attach_files", "read_message_history", "add_reactions", "use_external_emojis"),
    *("use_application_commands", "create_public_threads", "change_nickname"),
)
THE_BOT_MAY = (*EVERYBODY_MAY, "manage_messages")
# What a message looks like to a bot without the intent that does not concern it.
HIDDEN: Payload = {"content": "", "embeds": [], "components": [], "attachments": []}


# --- What Discord keeps ---------------------------------------------------------------


@dataclass(eq=False)
class User:
    id: int
    name: str
    bot: bool = False
    accepts_dms: bool = True
    locale: str = "en-US"

    def payload(self) -> Payload:
        return {
            "id": str(self.id),
            "username": self.name,
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
        }


@dataclass(eq=False)
class Role:
    id: int
    name: str
    permissions: set[str]

    @property
    def mention(self) -> str:
        return f"<@&{self.id}>"

    def payload(self) -> Payload:
        about = {"id": str(self.id), "name": self.name, "position": 1}
        return about | {"permissions": str(bits(self.permissions))}


@dataclass(eq=False)
class Guild:
    id: int
    name: str
    owner: User
    premium_tier: int = 0
    upload_limit_bytes: int | None = None  # overrides the tier's
    locale: str = "en-US"
    everyone: set[str] = field(default_factory=lambda: {*EVERYBODY_MAY})
    roles: list[Role] = field(default_factory=list)  # the others
    roles_of: dict[int, list[Role]] = field(default_factory=dict)  # by member

    def member(self, user: User) -> Payload:
        return {
            "user": user.payload(),
            "roles": [str(role.id) for role in self.roles_of.get(user.id, ())],
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
    nsfw: bool = False  # age-restricted; a thread has its parent's mark
    kind: int = TEXT  # or VOICE, if it is neither a direct message nor a thread
    locked: bool = False  # a thread that only moderators may write in
    archived: bool = False
    auto_archive_minutes: int = 1440

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
            data |= {"type": self.kind, "position": 0, "nsfw": self.nsfw}
            if self.kind == VOICE:
                data |= {"bitrate": 64000, "user_limit": 0}
            return data | {"permission_overwrites": overwrites}
        created_at = discord.utils.snowflake_time(self.id)
        return data | {
            "type": THREAD,
            "parent_id": str(self.parent.id),
            "owner_id": str(self.guild.owner.id),
            "message_count": 0,
            "member_count": 1,
            "thread_metadata": {
                "archived": self.archived,
                "locked": self.locked,
                "auto_archive_duration": self.auto_archive_minutes,
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
    description: str = ""

    def payload(self) -> Payload:
        url = f"https://cdn.invalid/{self.id}/{self.filename}"
        about = {"description": self.description} if self.description else {}
        return about | {
            "id": str(self.id),
            "filename": self.filename,
            "size": len(self.data),
            "content_type": mimetypes.guess_type(self.filename)[0],
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
    only_for: User | None = None  # of an ephemeral one
    reactions: dict[str, list[User]] = field(default_factory=dict)  # by emoji
    webhook_id: int | None = None
    flags: int = 0
    deleted: bool = False

    @property
    def created_at(self) -> datetime:
        return discord.utils.snowflake_time(self.id)

    @property
    def items(self) -> list[Payload]:
        """Its buttons and menus."""
        return [item for row in self.components for item in row["components"]]

    @property
    def buttons(self) -> list[str]:
        """The labels of those that can be clicked."""
        live = (item for item in self.items if not item.get("disabled"))
        return [item["label"] for item in live if item["type"] == BUTTON]

    @property
    def text(self) -> str:
        """All that it says, its embeds included."""
        texts = [self.content]
        for embed in self.embeds:
            texts.append(embed.get("author", {}).get("name", ""))
            texts += [embed.get("title", ""), embed.get("description", "")]
            for one in embed.get("fields", ()):
                texts += [one["name"], one["value"]]
            texts.append(embed.get("footer", {}).get("text", ""))
        return "\n".join(filter(None, texts))

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
            "flags": self.flags | (EPHEMERAL if self.only_for else 0),
            "reactions": [
                {
                    "emoji": {"id": None, "name": emoji},
                    "count": len(users),
                    "count_details": {"normal": len(users), "burst": 0},
                    "me": any(user.name == "Boss-Bot" for user in users),
                    "me_burst": False,
                    "burst_colors": [],
                }
                for emoji, users in self.reactions.items()
            ],
        }
        if self.webhook_id:
            data["webhook_id"] = str(self.webhook_id)
        if self.replied_to:
            data["message_reference"] = {
                "message_id": str(self.replied_to.id),
                "channel_id": str(self.channel.id),
            }
        return data


@dataclass(eq=False)
class Interaction:
    """A command, a click or a wish for choices, and what became of it."""

    id: int
    token: str
    type: int
    channel: Channel
    user: User
    clicked: Message | None = None
    at: float = field(default_factory=time.monotonic)
    callback: int = 0  # its type; 0: it is not acknowledged
    ephemeral: bool = False  # the answer that was deferred
    original: Message | None = None  # the answer, or the message that was clicked
    answers: list[Message] = field(default_factory=list)
    choices: list[Payload] = field(default_factory=list)
    dropped: bool = False  # what said "is thinking" has been deleted

    @property
    def waits(self) -> bool:
        """Whether the next answer takes the place of "is thinking"."""
        return self.callback == DEFER and not self.original and not self.dropped


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
        self.accepts_connections = True  # of the gateway
        self.ack_heartbeats = True
        self.heartbeat_interval_s = 41.25
        self.nonce_window_s = 300.0
        self.shows_history = True  # else what was posted is not to be seen yet
        self.request_limit_bytes = 25 * MIB  # of several files together
        self.requests_per_s = 0  # of a bot, by Discord 50; 0: any number
        # An interaction, else it is unknown; by Discord 3.
        self.acknowledge_within_s = 30.0
        self.interaction_s = 900.0  # how long it can be answered
        self.sessions: Counter[str] = Counter()  # connect, identify, resume, heartbeat
        self.requests: list[Request] = []
        self.commands: dict[str, Payload] = {}  # by name
        self.refused_commands: set[str] = set()  # their names are wrong
        self.filtered_names: set[str] = set()  # what no thread's name may hold
        self.users: dict[int, User] = {}
        self.guilds: list[Guild] = []
        self.channels: dict[int, Channel] = {}
        self.all_messages: dict[int, Message] = {}  # deleted ones too
        self._changed = asyncio.Event()
        self._last_id = 0
        self._faults: list[Fault] = []
        self.team: list[User] = []  # that owns the application; its owner is the first
        self.let_in: Counter[int] = Counter()  # requests, by the second
        self.interactions: dict[int, Interaction] = {}
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
        self, predicate: Callable[[], Any], timeout_s: float = 60
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
        async with asyncio.timeout(60):
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

    async def add_role(
        self, name: str, *permissions: str, guild: Guild | None = None
    ) -> Role:
        """A new role that nobody has."""
        role, guild = Role(self._new_id(), name, {*permissions}), guild or self.guild
        guild.roles.append(role)
        event = {"guild_id": str(guild.id), "role": role.payload()}
        await self._emit("GUILD_ROLE_CREATE", event)
        return role

    def give_role(self, user: User, role: Role) -> None:
        """A bot without the intent for members hears it with what the member does."""
        guild = next(guild for guild in self.guilds if role in guild.roles)
        guild.roles_of.setdefault(user.id, []).append(role)

    async def add_moderator(
        self, name: str, *permissions: str, guild: Guild | None = None
    ) -> User:
        """A member of every guild who may manage the messages of one, or what is named."""
        given = permissions or ("manage_messages",)
        role = await self.add_role(f"{name}'s role", *given, guild=guild)
        user = self.add_member(name)
        self.give_role(user, role)
        return user

    def permissions(self, channel: Channel, user: User) -> discord.Permissions:
        """What a member may do in a channel of a guild, overwrites included."""
        assert channel.guild
        guild, place = channel.guild, channel.parent or channel
        if user is guild.owner:
            return discord.Permissions.all()
        names = {*guild.everyone}.union(
            *(role.permissions for role in guild.roles_of.get(user.id, ()))
        )
        if "administrator" in names:
            return discord.Permissions.all()
        may = discord.Permissions(bits(names))
        may.value &= ~bits(place.denied | place.denied_to.get(user.id, set()))
        send = "send_messages_in_threads" if channel.parent else "send_messages"
        if not getattr(may, send):
            loud = ("send_tts_messages", "mention_everyone", "embed_links")
            may.value &= ~bits((*loud, "attach_files"))
        if not may.view_channel:
            may.value &= ~discord.Permissions.all_channel().value
        return may

    async def add_guild(
        self, name: str, premium_tier: int = 0, owner: User | None = None
    ) -> Channel:
        """The first channel of a new guild that the bot and everybody has joined."""
        guild = self._new_guild(name, premium_tier, owner)
        channel = self._new_channel("general", guild=guild)
        await self._emit("GUILD_CREATE", self._guild_payload(guild))
        return channel

    async def add_channel(self, name: str) -> Channel:
        """One more channel of the first guild."""
        channel = self._new_channel(name, guild=self.guild)
        await self._emit("CHANNEL_CREATE", channel.payload())
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

    async def restrict(self, channel_id: int, nsfw: bool = True) -> None:
        """Marks a channel as age-restricted."""
        channel = self.channels[channel_id]
        channel.nsfw = nsfw
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

    async def webhook_says(self, channel_id: int, content: str) -> Message:
        """A webhook, which is no member, says it."""
        author = User(self._new_id(), "a webhook")
        channel, payload = self.channels[channel_id], {"content": content}
        return await self._post(channel, author, payload, [], webhook_id=author.id)

    async def member_edits(self, message: Message, content: str) -> None:
        await self._change(message, {"content": content}, [])

    async def member_reacts(
        self, message: Message, emoji: str, user_id: int | None = None
    ) -> None:
        """A member clicks on a reaction, or adds one; twice takes it back between."""
        user = self.users[user_id or self.member.id]
        if user in message.reactions.get(emoji, ()):
            await self._remove_reaction(message, user, emoji)
        await self._add_reaction(message, user, emoji)

    async def slash(
        self,
        channel_id: int,
        name: str,
        options: Mapping[str, Any] | None = None,
        user_id: int | None = None,
    ) -> int:
        """A member uses a command, as "queue list", with ids for members, roles and
        channels; returns the interaction's id."""
        data = self._command_data(name, options or {}, channel_id)
        return (await self._interact(COMMAND, channel_id, user_id, data)).id

    async def autocomplete(
        self,
        channel_id: int,
        name: str,
        option: str,
        typed: str = "",
        options: Mapping[str, Any] | None = None,
        user_id: int | None = None,
    ) -> list[Payload]:
        """The choices, name and value, that the bot has for what is typed."""
        given = {**(options or {}), option: typed}
        data = self._command_data(name, given, channel_id, focused=option)
        asked = await self._interact(AUTOCOMPLETE, channel_id, user_id, data)
        await self.wait_for(lambda: asked.callback, self.acknowledge_within_s)
        return asked.choices

    async def use_on(
        self, message_id: int, name: str, user_id: int | None = None
    ) -> int:
        """A member picks an entry of a message's context menu."""
        message, command = self.all_messages[message_id], self.commands[name]
        assert command["type"] == 3 and not message.deleted
        data = {name: command[name] for name in ("id", "name", "type")}
        data["target_id"] = str(message_id)
        data["resolved"] = {"messages": {str(message_id): message.payload()}}
        channel = message.channel
        return (await self._interact(COMMAND, channel.id, user_id, data)).id

    async def click(
        self, message_id: int, button: str, user_id: int | None = None
    ) -> int:
        """A member clicks a button, given by its label or its custom_id."""
        message = self.all_messages[message_id]
        wanted = [
            item
            for item in message.items
            if item["type"] == BUTTON
            and button in (item.get("label"), item.get("custom_id"))
        ]
        assert wanted, f"no button {button!r}: {message.buttons}"
        assert not wanted[0].get("disabled"), f"{button!r} cannot be clicked"
        return await self._use_item(message, wanted[0], user_id)

    async def select(
        self,
        message_id: int,
        custom_id: str,
        values: Sequence[str],
        user_id: int | None = None,
    ) -> int:
        """A member chooses from a menu in a message."""
        message = self.all_messages[message_id]
        [item] = [one for one in message.items if one.get("custom_id") == custom_id]
        known = {option["value"] for option in item["options"]}
        assert known.issuperset(values), f"the menu has {known}"
        return await self._use_item(message, item, user_id, values=[*values])

    async def _use_item(
        self, message: Message, item: Payload, user_id: int | None, **more: Any
    ) -> int:
        user = self.users[user_id or self.member.id]
        assert not message.deleted and message.only_for in (None, user), "not visible"
        data = {"custom_id": item["custom_id"], "component_type": item["type"], **more}
        channel = message.channel
        return (await self._interact(COMPONENT, channel.id, user.id, data, message)).id

    async def answered(self, interaction_id: int, timeout_s: float = 60) -> Message:
        """The first message that answers an interaction, or the one that was clicked
        and has been changed."""
        asked = self.interactions[interaction_id]
        found: Message = await self.wait_for(
            lambda: (
                (asked.answers and asked.answers[0])
                or (asked.callback == CHANGE and asked.original)
            ),
            timeout_s,
        )
        return found

    def _command_data(
        self,
        words: str,
        given: Mapping[str, Any],
        channel_id: int,
        focused: str = "",
    ) -> Payload:
        """What an interaction says of a command that is used with these options."""
        name, *inner = words.split()
        command = self.commands.get(words) or self.commands[name]
        declared: Payload = command
        way: list[Payload] = []
        for word in inner if command["name"] == name else ():
            [declared] = [o for o in declared["options"] if o["name"] == word]
            way.append({"name": word, "type": declared["type"]})
        known = {option["name"]: option for option in declared.get("options", ())}
        for option in known.values():
            assert option["type"] not in (SUBCOMMAND, SUBCOMMAND_GROUP), "which one?"
            missing = option.get("required") and option["name"] not in given
            assert not missing or focused, f"{option['name']} is required"
        values: list[Payload] = []
        resolved: dict[str, Payload] = {}
        for option_name, value in given.items():
            kind = known[option_name]["type"]
            choices = known[option_name].get("choices")
            if choices:
                assert value in [choice["value"] for choice in choices], choices
            if kind in OPTION_KINDS:
                self._resolve(kind, int(value), channel_id, resolved)
                value = str(value)
            one = {"name": option_name, "type": kind, "value": value}
            values.append(one | ({"focused": True} if option_name == focused else {}))
        for outer in reversed(way):
            values = [outer | {"options": values}]
        about = {name: command[name] for name in ("id", "name", "type")}
        return about | {"options": values, "resolved": resolved}

    def _resolve(
        self, kind: int, number: int, channel_id: int, resolved: dict[str, Payload]
    ) -> None:
        """Adds what an option's id stands for."""
        guild = self.channels[channel_id].guild
        found: Payload
        if kind == 6:
            found = self.users[number].payload()
            if guild:
                member = guild.member(self.users[number])
                del member["user"]
                member["permissions"] = "0"
                resolved.setdefault("members", {})[str(number)] = member
        elif kind == 7:
            found = self.channels[number].payload() | {"permissions": "0"}
        else:
            assert guild
            [role] = [role for role in guild.roles if role.id == number]
            found = role.payload()
        resolved.setdefault(OPTION_KINDS[kind], {})[str(number)] = found

    async def _interact(
        self,
        kind: int,
        channel_id: int,
        user_id: int | None,
        data: Payload,
        clicked: Message | None = None,
    ) -> Interaction:
        channel, user = self.channels[channel_id], self.users[user_id or self.member.id]
        token = secrets.token_hex(16)
        asked = Interaction(self._new_id(), token, kind, channel, user, clicked)
        self.interactions[asked.id] = asked
        event: Payload = {
            "id": str(asked.id),
            "application_id": str(self.bot.id),
            "type": kind,
            "data": data,
            "token": token,
            "version": 1,
            "channel_id": str(channel.id),
            "channel": channel.payload(),
            "locale": user.locale,
            "entitlements": [],
            "context": 0 if channel.guild else 1,
            "attachment_size_limit": UPLOAD_LIMITS_BYTES[0],  # the asker's own
        }
        if clicked:
            event["message"] = clicked.payload()
        if guild := channel.guild:
            may = self.permissions(channel, user)
            event["guild_id"], event["guild_locale"] = str(guild.id), guild.locale
            event["member"] = guild.member(user) | {"permissions": str(may.value)}
            bot_may = self.permissions(channel, self.bot)
            event["app_permissions"] = str(bot_may.value)
        else:
            event["user"] = user.payload()
        await self._emit("INTERACTION_CREATE", event)
        return asked

    def messages(
        self, channel_id: int, bot_only: bool = False, seen_by: User | None = None
    ) -> list[Message]:
        """What stands in the channel, oldest first; of the ephemeral messages those of
        the one who looks."""
        return [
            message
            for message in self.all_messages.values()
            if message.channel.id == channel_id
            and not message.deleted
            and (message.author is self.bot or not bot_only)
            and message.only_for in (None, seen_by)
        ]

    async def delete_message(self, message_id: int) -> None:
        message = self.all_messages[message_id]
        message.deleted = True
        if message.only_for:
            self._notify()
            return
        data = {"id": str(message_id), "channel_id": str(message.channel.id)}
        await self._emit("MESSAGE_DELETE", data)

    async def delete_messages(self, channel_id: int) -> None:
        """All of a channel, at once."""
        found = self.messages(channel_id)
        for message in found:
            message.deleted = True
        ids = [str(message.id) for message in found]
        guild = self.channels[channel_id].guild
        where = {"channel_id": str(channel_id), "guild_id": str(guild and guild.id)}
        await self._emit("MESSAGE_DELETE_BULK", {"ids": ids, **where})

    async def remove_bot(self, guild_id: int) -> None:
        """Throws the bot out of a guild."""
        self.guilds = [guild for guild in self.guilds if guild.id != guild_id]
        await self._emit("GUILD_DELETE", {"id": str(guild_id)})

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

    def _new_guild(
        self, name: str, premium_tier: int = 0, owner: User | None = None
    ) -> Guild:
        guild = Guild(self._new_id(), name, owner or self.owner, premium_tier)
        role = Role(self._new_id(), self.bot.name, {*THE_BOT_MAY})
        guild.roles.append(role)
        guild.roles_of[self.bot.id] = [role]
        self.guilds.append(guild)
        return guild

    def _new_channel(self, name: str, **where: Any) -> Channel:
        channel = Channel(self._new_id(), name, **where)
        self.channels[channel.id] = channel
        return channel

    def _guild_payload(self, guild: Guild) -> Payload:
        """The guild as in GUILD_CREATE: of its members only the bot."""
        here = [c for c in self.channels.values() if c.guild is guild]
        everyone = Role(guild.id, "@everyone", guild.everyone).payload()
        everyone["position"] = 0
        return {
            "id": str(guild.id),
            "name": guild.name,
            "owner_id": str(guild.owner.id),
            "premium_tier": guild.premium_tier,
            "member_count": len(self.users),
            "unavailable": False,
            "preferred_locale": guild.locale,
            "roles": [everyone, *(role.payload() for role in guild.roles)],
            "members": [guild.member(self.bot)],
            "channels": [c.payload() for c in here if not c.parent],
            "threads": [c.payload() for c in here if c.parent],
        }

    def _channel_of(self, call: Call, *permissions: str) -> Channel:
        """The channel of a request that needs these permissions there."""
        channel = self.channels.get(call.id("channel_id"))
        if channel is None:
            raise ApiError(404, 10003, "Unknown Channel")
        if channel.guild is None:
            return channel
        may = self.permissions(channel, self.bot)
        if not may.view_channel:
            raise ApiError(403, 50001, "Missing Access")
        for name in permissions:
            if name == "send_messages" and channel.parent:
                name = "send_messages_in_threads"
            if not getattr(may, name):
                raise ApiError(403, 50013, "Missing Permissions")
        return channel

    async def _post(
        self,
        channel: Channel,
        author: User,
        payload: Payload,
        files: Files,
        only_for: User | None = None,
        webhook_id: int | None = None,
    ) -> Message:
        message = Message(self._new_id(), channel, author, payload.get("nonce"))
        message.only_for, message.webhook_id = only_for, webhook_id
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
        message.flags = payload.get("flags", message.flags) & SUPPRESS_EMBEDS
        message.components = payload.get("components", message.components) or []
        shown = message.content or message.embeds or message.components
        if not (shown or files or message.files):
            raise ApiError(400, 50006, "Cannot send an empty message")
        if reference := payload.get("message_reference"):
            message.replied_to = self._referenced(message.channel, reference)
        message.versions.append(message.content)
        told = {
            int(one["id"]): one.get("description") or ""
            for one in payload.get("attachments") or ()
        }
        message.files += [
            StoredFile(self._new_id(), *file, told.get(number, ""))
            for number, file in enumerate(files)
        ]
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
        if message.only_for:
            self._notify()
            return
        guild, data = message.channel.guild, message.payload()
        if guild:
            data["guild_id"] = str(guild.id)
        if guild and not message.webhook_id:
            data["member"] = guild.member(message.author)
        intent = GUILD_MESSAGES if guild else DIRECT_MESSAGES
        concerned = message.author is self.bot or self.bot in message.mentions
        for session in list(self._sessions.values()):
            visible = not guild or concerned or session.intents & MESSAGE_CONTENT
            if session.intents & intent:
                await session.dispatch(event, data if visible else data | HIDDEN)
        self._notify()

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        if not self.accepts_connections:
            return web.Response(status=503)
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
            elif packet["op"] == 8 and session:
                await self._find_members(session, packet["d"])
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

    async def _find_members(self, session: Session, data: Payload) -> None:
        """Answers a search for members by the start of their names."""
        [guild] = [one for one in self.guilds if str(one.id) == str(data["guild_id"])]
        found = [
            guild.member(user)
            for user in self.users.values()
            if user.name.casefold().startswith(data["query"].casefold())
        ]
        chunk = {"guild_id": str(guild.id), "members": found[: data["limit"]]}
        chunk |= {"chunk_index": 0, "chunk_count": 1, "nonce": data.get("nonce")}
        await session.dispatch("GUILD_MEMBERS_CHUNK", chunk)

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
        wrong = {"name": {"_errors": [{"code": "WRONG", "message": "It is wrong."}]}}
        errors = {
            str(place): wrong
            for place, command in enumerate(call.payload)
            if command["name"] in self.refused_commands
        }
        if errors:
            refusal = ApiError(400, 50035, "Invalid Form Body")
            refusal.body["errors"] = errors
            raise refusal
        self.commands = {
            command["name"]: about | command | {"id": str(self._new_id())}
            for command in call.payload
        }
        return list(self.commands.values())

    @route("callback", "POST", "/interactions/{interaction_id}/{token}/callback")
    async def _callback(self, call: Call) -> Payload:
        asked, kind = (
            self.interactions.get(call.id("interaction_id")),
            call.payload["type"],
        )
        late = not asked or time.monotonic() - asked.at > self.acknowledge_within_s
        if asked is None or late or asked.token != call.params["token"]:
            raise ApiError(404, 10062, "Unknown interaction")
        if asked.callback:
            raise ApiError(400, 40060, "Interaction has already been acknowledged.")
        data = call.payload.get("data") or {}
        of_component = kind in (DEFER_CHANGE, CHANGE)
        fits = {AUTOCOMPLETE: kind == CHOICES, COMPONENT: kind != CHOICES}
        if not fits.get(asked.type, kind in (ANSWER, DEFER)):
            raise ApiError(400, 50035, f"Invalid Form Body: type {kind} does not fit")
        if kind == CHOICES:
            check_choices(data["choices"])
            asked.choices = data["choices"]
        elif kind == DEFER:
            asked.ephemeral = bool(data.get("flags", 0) & EPHEMERAL)
        elif of_component:
            asked.original = asked.clicked
        message = None
        if kind == ANSWER:
            message = await self._answer(asked, data, call.files)
        elif kind == CHANGE and asked.clicked:
            message = await self._change(asked.clicked, data, call.files)
        asked.callback = kind
        about = {"id": str(asked.id), "type": asked.type}
        if message:
            about["response_message_id"] = str(message.id)
        payload = message.payload() if message else None
        return {"interaction": about, "resource": {"type": kind, "message": payload}}

    @route("followup", "POST", "/webhooks/{application_id}/{token}")
    async def _follow_up(self, call: Call) -> Payload:
        asked = self._interaction_of(call)
        return (await self._answer(asked, call.payload, call.files)).payload()

    @route("answer", "GET", "/webhooks/{application_id}/{token}/messages/{message_id}")
    async def _get_answer(self, call: Call) -> Payload:
        return self._answer_of(call).payload()

    @route(
        "answer", "PATCH", "/webhooks/{application_id}/{token}/messages/{message_id}"
    )
    async def _edit_answer(self, call: Call) -> Payload:
        asked = self._interaction_of(call)
        if asked.waits and call.params["message_id"] == "@original":
            message = await self._answer(asked, call.payload, call.files)
        else:
            message = await self._change(
                self._answer_of(call), call.payload, call.files
            )
        return message.payload()

    @route(
        "answer", "DELETE", "/webhooks/{application_id}/{token}/messages/{message_id}"
    )
    async def _delete_answer(self, call: Call) -> None:
        asked = self._interaction_of(call)
        if asked.waits and call.params["message_id"] == "@original":
            asked.dropped = True
        else:
            await self.delete_message(self._answer_of(call).id)

    def _interaction_of(self, call: Call) -> Interaction:
        """The one with the token in the path."""
        for asked in self.interactions.values():
            if asked.token == call.params["token"]:
                if not asked.callback:
                    raise ApiError(404, 10015, "Unknown Webhook")
                if time.monotonic() - asked.at > self.interaction_s:
                    raise ApiError(401, 50027, "Invalid Webhook Token")
                return asked
        raise ApiError(404, 10015, "Unknown Webhook")

    def _answer_of(self, call: Call) -> Message:
        asked, wanted = self._interaction_of(call), call.params["message_id"]
        for message in (asked.original, *asked.answers):
            name = "@original" if message is asked.original else ""
            if message and not message.deleted and wanted in (name, str(message.id)):
                return message
        raise ApiError(404, 10008, "Unknown Message")

    async def _answer(
        self, asked: Interaction, payload: Payload, files: Files
    ) -> Message:
        """Answers an interaction; what was deferred keeps to what was said then."""
        ephemeral = bool(payload.get("flags", 0) & EPHEMERAL)
        if asked.waits:
            ephemeral = asked.ephemeral
        only_for = asked.user if ephemeral else None
        message = await self._post(asked.channel, self.bot, payload, files, only_for)
        asked.original = asked.original or message
        asked.answers.append(message)
        return message

    async def _change(
        self, message: Message, payload: Payload, files: Files
    ) -> Message:
        self._write(message, payload, files)
        await self._emit_message("MESSAGE_UPDATE", message)
        return message

    # --- Messages, channels and the rest of REST ---

    @route("send", "POST", "/channels/{channel_id}/messages")
    async def _send(self, call: Call) -> Payload:
        needed = ["send_messages", "attach_files"] if call.files else ["send_messages"]
        channel, payload = self._channel_of(call, *needed), call.payload
        if channel.guild and not self.permissions(channel, self.bot).embed_links:
            payload = payload | {"embeds": []}  # without a word
        if channel.locked:
            raise ApiError(400, 50083, "Thread is archived")
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
        hidden = message is None or message.deleted or message.only_for
        if message is None or hidden or message.channel is not channel:
            raise ApiError(404, 10008, "Unknown Message")
        return message.payload()

    @route("edit", "PATCH", "/channels/{channel_id}/messages/{message_id}")
    async def _edit(self, call: Call) -> Payload:
        self._channel_of(call)
        message = self.all_messages.get(call.id("message_id"))
        if message is None or message.deleted or message.only_for:
            raise ApiError(404, 10008, "Unknown Message")
        if message.author is not self.bot:
            if set(call.payload) != {"flags"}:
                raise ApiError(403, 50005, "Cannot edit a message of another user")
            self._channel_of(call, "manage_messages")
        return (await self._change(message, call.payload, call.files)).payload()

    @route(
        "react",
        "PUT",
        "/channels/{channel_id}/messages/{message_id}/reactions/{emoji}/@me",
    )
    async def _react(self, call: Call) -> None:
        self._channel_of(call, "read_message_history")
        message, emoji = self._visible(call), call.params["emoji"]
        if emoji not in message.reactions:
            self._channel_of(call, "add_reactions")
        await self._add_reaction(message, self.bot, emoji)

    @route(
        "unreact",
        "DELETE",
        "/channels/{channel_id}/messages/{message_id}/reactions/{emoji}/{user}",
    )
    async def _unreact(self, call: Call) -> None:
        self._channel_of(call)
        assert call.params["user"] in ("@me", str(self.bot.id))
        message = self._visible(call)
        await self._remove_reaction(message, self.bot, call.params["emoji"])

    def _visible(self, call: Call) -> Message:
        """The message of a request."""
        message = self.all_messages.get(call.id("message_id"))
        if message is None or message.deleted or message.only_for:
            raise ApiError(404, 10008, "Unknown Message")
        return message

    async def _add_reaction(self, message: Message, user: User, emoji: str) -> None:
        users = message.reactions.setdefault(emoji, [])
        if user not in users:
            users.append(user)
            await self._emit_reaction("MESSAGE_REACTION_ADD", message, user, emoji)

    async def _remove_reaction(self, message: Message, user: User, emoji: str) -> None:
        users = message.reactions.get(emoji, [])
        if user in users:
            users.remove(user)
        if not users:
            message.reactions.pop(emoji, None)
        await self._emit_reaction("MESSAGE_REACTION_REMOVE", message, user, emoji)

    async def _emit_reaction(
        self, event: str, message: Message, user: User, emoji: str
    ) -> None:
        guild = message.channel.guild
        assert guild
        data: Payload = {
            "user_id": str(user.id),
            "channel_id": str(message.channel.id),
            "message_id": str(message.id),
            "guild_id": str(guild.id),
            "emoji": {"id": None, "name": emoji},
            "burst": False,
            "type": 0,
        }
        if event == "MESSAGE_REACTION_ADD":
            data["member"] = guild.member(user)
            data["message_author_id"] = str(message.author.id)
        for session in list(self._sessions.values()):
            if session.intents & GUILD_REACTIONS:
                await session.dispatch(event, data)
        self._notify()

    @route("delete", "DELETE", "/channels/{channel_id}/messages/{message_id}")
    async def _delete(self, call: Call) -> None:
        channel = self._channel_of(call)
        message = self.all_messages.get(call.id("message_id"))
        hidden = message is None or message.deleted or message.only_for
        if message is None or hidden or message.channel is not channel:
            raise ApiError(404, 10008, "Unknown Message")
        if message.author is not self.bot:
            self._channel_of(call, "manage_messages")
        await self.delete_message(message.id)

    @route("thread", "POST", "/channels/{channel_id}/messages/{message_id}/threads")
    async def _start_thread(self, call: Call) -> Payload:
        """A thread has its message's id, so that a message can have but one."""
        channel = self._channel_of(call, "create_public_threads")
        message = self.all_messages.get(call.id("message_id"))
        if message is None or message.deleted or message.channel is not channel:
            raise ApiError(404, 10008, "Unknown Message")
        if channel.guild is None or channel.parent or channel.kind != TEXT:
            raise ApiError(400, 50024, "Cannot execute action on this channel type")
        if message.id in self.channels:
            raise ApiError(400, 160004, "A thread has already been created")
        name, minutes = call.payload["name"], call.payload["auto_archive_duration"]
        refused = any(word in name for word in self.filtered_names)
        if not 1 <= len(name.strip()) <= 100 or refused:
            raise invalid("name must be between 1 and 100 in length.")
        if minutes not in (60, 1440, 4320, 10080):
            raise invalid("auto_archive_duration")
        thread = Channel(message.id, name, channel.guild, channel)
        thread.auto_archive_minutes = minutes
        self.channels[thread.id] = thread
        await self._emit("THREAD_CREATE", thread.payload() | {"newly_created": True})
        return thread.payload()

    @route("edit_channel", "PATCH", "/channels/{channel_id}")
    async def _edit_thread(self, call: Call) -> Payload:
        """Who has made a thread may name and archive it."""
        thread = self._channel_of(call)
        if thread.parent is None:
            raise ApiError(403, 50013, "Missing Permissions")
        thread.name = call.payload.get("name", thread.name)
        thread.archived = call.payload.get("archived", thread.archived)
        await self._emit("THREAD_UPDATE", thread.payload())
        return thread.payload()

    @route("guild", "GET", "/guilds/{guild_id}")
    async def _get_guild(self, call: Call) -> Payload:
        for guild in self.guilds:
            if guild.id == call.id("guild_id"):
                return self._guild_payload(guild)
        raise ApiError(404, 10004, "Unknown Guild")

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
        owner, team = self.owner.payload(), None
        if self.team:  # it owns the application, as if it was somebody
            owner = User(self.bot.id - 1, f"team{self.bot.id}").payload()
            members = [
                {
                    "membership_state": 2,
                    "permissions": ["*"],
                    "role": "admin",
                    "user": user.payload(),
                }
                for user in self.team
            ]
            team = {
                "id": owner["id"],
                "name": "a team",
                "icon": None,
                "owner_user_id": str(self.team[0].id),
                "members": members,
            }
        return {
            "id": str(self.bot.id),
            "name": self.bot.name,
            "team": team,
            "description": "",
            "icon": None,
            "bot_public": False,
            "bot_require_code_grant": False,
            "flags": 1 << 19 if self.message_content_allowed else 0,
            "owner": owner,
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
        if (left_s := self._full_second()) and not fault:
            return fault_answer(429, left_s, everywhere=True)
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

    def _full_second(self) -> float:
        """How long no more requests are let in, 0 if there is room for this one."""
        second, part_s = divmod(time.monotonic(), 1)
        if 0 < self.requests_per_s <= self.let_in[int(second)]:
            return 1 - part_s
        self.let_in[int(second)] += 1
        return 0


def check_limits(payload: Payload, file_count: int) -> None:
    """Raises what Discord answers to too much text or too many files."""
    lengths = [
        ("content", len(payload.get("content") or ""), 2000),
        ("nonce", len(payload.get("nonce") or ""), 25),
        ("attachments", file_count, 10),
        ("embeds", len(payload.get("embeds") or ()), 10),
    ]
    for file in payload.get("attachments") or ():
        text = file.get("description") or ""
        lengths.append(("description", len(text.encode("utf-16-le")) // 2, 1024))
    total = 0
    for embed in payload.get("embeds") or ():
        footer, author = embed.get("footer") or {}, embed.get("author") or {}
        fields = embed.get("fields") or ()
        texts = [
            ("title", embed.get("title"), 256),
            ("description", embed.get("description"), 4096),
            ("footer", footer.get("text"), 2048),
            ("author", author.get("name"), 256),
            *(("field name", one["name"], 256) for one in fields),
            *(("field value", one["value"], 1024) for one in fields),
        ]
        lengths += [(name, len(text or ""), most) for name, text, most in texts]
        lengths.append(("fields", len(fields), 25))
        total += sum(len(text or "") for _, text, _ in texts)
        if not all(one["name"].strip() and one["value"].strip() for one in fields):
            raise invalid("a field needs a name and a value")
    lengths.append(("embeds together", total, 6000))
    rows = payload.get("components") or ()
    items = [item for row in rows for item in row["components"]]
    lengths.append(("components", len(rows), 5))
    for row in rows:
        lengths.append(("a row", len(row["components"]), 5))
    for item in items:
        lengths.append(("label", len(item.get("label") or ""), 80))
        lengths.append(("custom_id", len(item.get("custom_id") or ""), 100))
        lengths.append(("options", len(item.get("options") or ()), 25))
    for name, length, most in lengths:
        if length > most:
            raise invalid(f"{name} must be {most} or fewer in length.")
    ids = [item["custom_id"] for item in items if "custom_id" in item]
    if len(set(ids)) < len(ids):
        raise invalid("a custom_id is there twice")


def check_choices(choices: Sequence[Payload]) -> None:
    """The same for an autocomplete."""
    if len(choices) > 25:
        raise invalid("choices must be 25 or fewer in length.")
    for choice in choices:
        for text in (choice["name"], choice["value"]):
            if isinstance(text, str) and not 1 <= len(text) <= 100:
                raise invalid("a choice must be between 1 and 100 in length.")


def invalid(text: str) -> ApiError:
    return ApiError(400, 50035, f"Invalid Form Body: {text}")


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


def fault_answer(
    status: int, retry_after_s: float, code: int = 0, everywhere: bool = False
) -> web.Response:
    if status == 429:
        data = {"message": "You are being rate limited.", "retry_after": retry_after_s}
        response = answer(429, data | {"global": everywhere})
        response.headers["Retry-After"] = f"{retry_after_s:g}"
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
