"""Imports the core for the child's side, without pydantic and loguru.

A library of ``child_runner.py``. Nothing on that side reads settings or writes the log,
and the two would take 7 MB in the fork server and a third of the time to import the core.
An engine that asks for them gets them.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, ClassVar


class BaseModel:
    model_fields: ClassVar[dict[str, Any]] = {}


class ByteSize(int):
    def human_readable(self, separator: str) -> str:
        """As pydantic's: "1.5 MiB"."""
        size, unit = float(self), "B"
        for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
            if abs(size) >= 1024:
                size, unit = size / 1024, larger
        return f"{size:.{int(unit != 'B')}f}{separator}{unit}"


class Nothing:
    """Anything else: it accepts any call and any attribute, and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return self


STAND_INS: dict[str, dict[str, Any]] = {
    "pydantic": {
        "BaseModel": BaseModel,
        "ByteSize": ByteSize,
        "ValidationError": ValueError,
    },
    "loguru": {"logger": Nothing()},
}


def import_core() -> ModuleType:
    """The core, imported in a process that has just begun."""
    for name, contents in STAND_INS.items():
        module: Any = ModuleType(name)
        vars(module).update(contents)
        module.__getattr__ = lambda name: Nothing
        sys.modules[name] = module
    core = importlib.import_module("bossbot")
    for name in STAND_INS:
        del sys.modules[name]
    return core
