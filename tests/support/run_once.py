"""Gives all apps of a process the same modules of our plugins, whose code runs once.

Most of the time to load an app went into running the same code again. For each app that
loads, a module is put back as it was after its code had run: its attributes, those of its
classes and their instances, and what their dicts, lists and sets held. What lies deeper
is not, and an app that is still at work sees it, too. A reload runs the code again.
"""

import asyncio
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from bossbot import PLUGIN_PACKAGE

CONTAINERS = (dict, list, set)


class Kept:
    """What a module and its objects hold, to be put back."""

    def __init__(self, module: ModuleType) -> None:
        values, name = [*vars(module).values()], module.__name__
        own = [
            value
            for value in values
            if name in (getattr(value, "__module__", ""), type(value).__module__)
            or isinstance(value, asyncio.Lock)
        ]
        holders = [one for one in (module, *own) if hasattr(one, "__dict__")]
        self.attributes = [(one, {**vars(one)}) for one in holders]
        self.contents = [
            (value, value.copy())
            for _, kept in self.attributes
            for name, value in kept.items()
            if isinstance(value, CONTAINERS) and not name.startswith("__")
        ]
        self.caches = [one.cache_clear for one in values if hasattr(one, "cache_clear")]

    def put_back(self) -> None:
        for holder, kept in self.attributes:
            now = {**vars(holder)}
            for name in now.keys() | kept.keys():
                if now.get(name) is kept.get(name) or name.startswith("__"):
                    continue
                if name in kept:
                    setattr(holder, name, kept[name])
                else:
                    delattr(holder, name)
        for value, content in self.contents:
            if value != content:
                value.clear()
                (value.extend if isinstance(value, list) else value.update)(content)
        for clear in self.caches:
            clear()


class OnceLoader(SourceFileLoader):
    module: ModuleType | None = None
    package: ModuleType | None = None  # of the app that loaded it last

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        package, self.package = self.package, sys.modules[PLUGIN_PACKAGE]
        return None if package is self.package else self.module

    def exec_module(self, module: ModuleType) -> None:
        if module is self.module:
            self.kept.put_back()
            return
        super().exec_module(module)
        if not self.module:
            self.module, self.kept = module, Kept(module)


class PluginFinder:
    """Finds plugins in folders that stay as they are without asking the disk, or pytest,
    which rewrites tests: an app imports up to two hundred modules. Links lead to files
    that stay as they are, too."""

    def __init__(self, *places: str) -> None:
        self.places = places
        self._files = dict[str, dict[str, str]]()  # by folder, by stem
        self._loaders = dict[str, OnceLoader]()  # by a file's true path

    def find_spec(
        self, name: str, path: list[str] | None, target: object = None
    ) -> ModuleSpec | None:
        package, _, stem = name.rpartition(".")
        if f"{package}.".startswith(f"{PLUGIN_PACKAGE}."):
            for folder in path or ():
                if spec := self._find_in(folder, name, stem):
                    return spec
        return None

    def _find_in(self, folder: str, name: str, stem: str) -> ModuleSpec | None:
        if folder.startswith(self.places):
            if folder not in self._files:
                found = [
                    *Path(folder).glob("*.py"),
                    *Path(folder).glob("*/__init__.py"),
                ]
                self._files[folder] = {
                    (file.stem if file.stem != "__init__" else file.parent.name): (
                        os.path.realpath(file)
                    )
                    for file in found
                }
            place = self._files[folder].get(stem)
        elif os.path.islink(link := f"{folder}/{stem}.py"):
            place = os.path.realpath(link)
        else:
            spec = PathFinder.find_spec(name, [folder])
            return spec if spec and spec.loader else None
        if not place:
            return None
        loader = self._loaders.setdefault(place, OnceLoader(name, place))
        return spec_from_file_location(name, place, loader=loader)
