"""The fixtures of the tests on one engine: see engine_lab.py."""

import contextlib
import functools
from collections.abc import Iterator

import pytest
from engine_lab import Lab, Labs


@pytest.fixture(scope="session")
def labs() -> Iterator[Labs]:
    """The lab of an engine plugin, by its stem; each is started once."""
    with contextlib.ExitStack() as running:
        yield functools.cache(lambda stem: running.enter_context(Lab(stem)))
