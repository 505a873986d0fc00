"""Says where links go: the rules a link must keep, the platforms, then the engines."""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

from bossbot import Pipeline, Refused, Route, Router, hookimpl


@hookimpl(trylast=True)  # any other router is there because the host wants it
def register_router(pipeline: Pipeline) -> Router:
    return PlatformRouter(pipeline)


def check_link(link: str) -> str:
    """A member's link as the engines may get it: http(s), its host in ASCII. What a
    fragment may mean is an engine's matter.

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


class PlatformRouter:
    """The ``Router``: the first platform whose pattern matches, else the first engine
    with an extractor of its own, else the generic one."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    async def route_all(self, links: Sequence[str]) -> list[Route | Refused]:
        """See ``Router``."""
        routes = [self._by_platform(link) for link in links]
        others = [r.url for r in routes if isinstance(r, Route) and not r.engine]
        found = await self.pipeline.runner.supports(others) if others else []
        engines = dict(zip(others, found, strict=True))
        return [
            r._replace(engine=r.engine or engines[r.url]) if isinstance(r, Route) else r
            for r in routes
        ]

    def _by_platform(self, link: str) -> Route | Refused:
        """The route of a link as far as the platforms know it."""
        name, engines = "", self.pipeline.plugins.registered("engines")
        try:
            url = check_link(link)
            for name, platform in self.pipeline.plugins.registered("platforms").items():
                if re.match(platform.pattern, url, re.IGNORECASE):
                    url = platform.normalise(url)
                    routed = (
                        engine
                        for pattern, engine in platform.routes
                        if re.match(pattern, url, re.IGNORECASE)
                    )
                    engine = next(routed, platform.engine)
                    return Route(url, name, engine if engine in engines else "")
            return Route(url, "", "")
        except Refused as error:
            error.platform = name
            return error
