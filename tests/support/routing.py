"""Where links go, for tests, with the engines asked."""

from bossbot_plugins.which import route_all

from bossbot import App, Refused, Route

__all__ = ["route", "route_all"]


async def route(app: App, link: str) -> Route:
    """A link's route; raises Refused."""
    found = (await route_all(app, [link]))[0]
    if isinstance(found, Refused):
        raise found
    return found
