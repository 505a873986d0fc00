"""Decides where links go: by the rules for links, the platforms, then the engines."""

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from loguru import logger

from bossbot import (
    SENTENCES,
    App,
    Cause,
    Part,
    Refused,
    Route,
    Router,
    hookimpl,
)


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
        raise Refused("Invalid URL: it is longer than 2,000 characters.")
    hidden = ("Cc", "Cf", "Cn", "Cs", "Co", "Zs", "Zl", "Zp")
    if "\\" in link or any(unicodedata.category(char) in hidden for char in link):
        raise Refused("Invalid URL: it has a space, a backslash or a hidden character.")
    if not re.match(r"https?://", link, re.IGNORECASE):
        raise Refused("Invalid URL: it must start with http:// or https://.")
    try:
        parts = urlsplit(link)
        host = parts.hostname or ""
        if ":" in host:  # IPv6
            host = f"[{ipaddress.IPv6Address(host)}]"
        else:
            host = host.encode("idna").decode("ascii").lower().rstrip(".")
        netloc = f"{host}:{parts.port}" if parts.port else host
    except ValueError as error:  # UnicodeError is one
        raise Refused("Invalid URL: its host or port is malformed.") from error
    if "@" in parts.netloc:
        raise Refused("Invalid URL: user names and passwords are not accepted.")
    if not re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", host):
        raise Refused("Invalid URL: it has no host.")
    path = parts.path or "/"
    return urlunsplit(
        parts._replace(scheme=parts.scheme.lower(), netloc=netloc, path=path)
    )


class PlatformRouter(Router):
    """Takes the first platform whose pattern matches, else the first engine with an
    extractor of its own, else the generic engine."""

    async def route_all(self, links: Sequence[str]) -> list[Route | Refused]:
        routes = [self._by_platform(link) for link in links]
        others = [r.url for r in routes if isinstance(r, Route) and not r.engine]
        found = await self.app.runner.supports(others) if others else []
        engines = dict(zip(others, found, strict=True))
        return [
            r._replace(engine=r.engine or engines[r.url]) if isinstance(r, Route) else r
            for r in routes
        ]

    def _by_platform(self, link: str) -> Route | Refused:
        """A link's route, without an engine if no platform matches or its engine is off."""
        name, engines = "", self.app.plugins.registered("engines")
        try:
            url = check_link(link)
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
            refused = Refused(SENTENCES[Cause.INTERNAL])
        refused.platform = name
        return refused
