"""The fixtures of the tests on one engine: see engine_lab.py."""

import contextlib
import functools
from collections.abc import Iterator

import pytest
from engine_lab import Lab, Labs
from sites import Sites


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    """The lab of an engine plugin, by its stem; each is started once."""
    with contextlib.ExitStack() as running:
        yield functools.cache(lambda stem: running.enter_context(Lab(stem)))


@pytest.fixture(scope="session")
def shared_sites() -> Iterator[Sites]:
    with Sites() as sites:
        yield sites


@pytest.fixture
def sites(shared_sites: Sites) -> Iterator[Sites]:
    """The sites with nothing asked of them yet."""
    shared_sites.forget()
    yield shared_sites
    if shared_sites.errors:
        raise shared_sites.errors.pop()
