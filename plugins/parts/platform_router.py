"""Decides where links go, by the rules for links and the platforms."""

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import idna
import idna.core
from loguru import logger

from bossbot import (
    SENTENCES,
    App,
    Cause,
    Part,
    Refused,
    Route,
    Router,
    _,
    hookimpl,
)

# A message or a channel of Discord's own.
DISCORD = re.compile(r"https?://(?:\w+\.)?discord(?:app)?\.com/channels/")
OWN_PORTS = {"http": 80, "https": 443}


@hookimpl
def register_parts() -> dict[str, Callable[[App], Part]]:
    return {"router": PlatformRouter}


def check_link(link: str) -> str:
    """A member's link in the form that engines may get: http(s), its host in ASCII. The
    fragment stays; the engine decides what it means.

    Raises:
        Refused: with the reason, for the member.
    """
    if len(link) > 2000:
        raise Refused(_("Invalid URL: it is longer than 2,000 characters."))
    hidden = ("Cc", "Cf", "Cn", "Cs", "Co", "Zs", "Zl", "Zp")
    if "\\" in link or any(unicodedata.category(char) in hidden for char in link):
        raise Refused(
            _("Invalid URL: it has a space, a backslash or a hidden character.")
        )
    if not re.match(r"https?://", link, re.IGNORECASE):
        raise Refused(_("Invalid URL: it must start with http:// or https://."))
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        if ":" in host:  # IPv6
            host = f"[{ipaddress.IPv6Address(host)}]"
        else:
            host = ascii_host(host)
        own = parts.port in (None, 0, OWN_PORTS[parts.scheme.lower()])
        netloc = host if own else f"{host}:{parts.port}"
    except ValueError as error:  # UnicodeError is one
        raise Refused(_("Invalid URL: its host or port is malformed.")) from error
    if "@" in parts.netloc:
        raise Refused(_("Invalid URL: user names and passwords are not accepted."))
    if not re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", host):
        raise Refused(_("Invalid URL: it has no host."))
    path = parts.path or "/"
    return urlunsplit(
        parts._replace(scheme=parts.scheme.lower(), netloc=netloc, path=path)
    )


def ascii_host(host: str) -> str:
    """A host's name as browsers ask for it (UTS 46, where "ß" is a letter of its own);
    raises ValueError for one that is none."""
    host = idna.uts46_remap(host, std3_rules=False, transitional=False)
    labels = host.removesuffix(".").split(".")
    for number, label in enumerate(labels):
        if not label.isascii():
            idna.core.check_initial_combiner(label)
            idna.core.check_bidi(label)
            labels[number] = "xn--" + label.encode("punycode").decode()
    if not all(len(label) < 64 for label in labels) or len(host) > 253:
        raise ValueError("too long")
    if labels != [""] and not all(labels):
        raise ValueError("an empty label")
    return ".".join(labels)


class PlatformRouter(Router):
    """Takes the first platform whose pattern matches. Which engine fetches any other
    link, the engines say where it is downloaded."""

    def route(self, link: str) -> Route:
        """See ``Router``."""
        name, engines = "", self.app.plugins.registered("engines")
        try:
            url = check_link(link)
            if DISCORD.match(url):
                raise Refused(
                    _(
                        "That link leads to a message on Discord, not to media. Reply to "
                        "that message with the download command, or paste the link in it."
                    )
                )
            for name, platform in self.app.plugins.registered("platforms").items():
                if re.match(platform.pattern, url, re.IGNORECASE):
                    url = platform.normalise(url)
                    engine = platform.engine_for(url)
                    return Route(url, name, engine if engine in engines else "")
            return Route(url, "", "")
        except Refused as error:
            refused = error
        except Exception as error:  # the boundary of a plugin
            logger.opt(exception=error).error("platform {} failed on a link", name)
            refused = Refused(_(SENTENCES[Cause.INTERNAL]))
        refused.platform = name
        raise refused
