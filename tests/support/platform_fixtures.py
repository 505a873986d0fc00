"""The fixtures of the tests on canned sites: see platform_support.py."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from platform_support import Apps, Web, environment
from sites import Sites


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_web(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Web]:
    with Sites() as sites:
        web = Web(sites, tmp_path_factory.mktemp("web"))
        # These are dialled as they are, by those who are allowed to.
        direct = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost,.invalid")
        with environment(**{**sites.environment, **direct}):
            await web.start()
        yield web
        await web.runner.stop()


@pytest.fixture
def web(shared_web: Web) -> Iterator[Web]:
    """The sites with nothing asked of them yet."""
    sites = shared_web.sites
    for of_earlier_tests in (sites.requests, sites.hits, sites.unknown, sites._routes):
        of_earlier_tests.clear()
    yield shared_web


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def apps(shared_web: Web, request: pytest.FixtureRequest) -> AsyncIterator[Apps]:
    """Apps at work, by the engine that the file's `files` are asked of; "" for the usual
    one."""
    async with AsyncExitStack() as stack:
        yield {
            engine: await stack.enter_async_context(
                shared_web.running(request.module.files(engine) if engine else None)
            )
            for engine in ("", "gallery-dl", "yt-dlp")
        }
