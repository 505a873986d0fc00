"""Where plugins lie: ours on shelves, the owner's own beside them, and libraries."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import (
    PARTS,
    ROOT,
    SUPPORT_PLUGINS,
    Home,
    MakeApp,
    MakeSettings,
    edit,
    link_plugins,
    make_job,
)
from routing import route

from bossbot import OURS, SHELVES, App, find_plugins, plugin_folders

PLUGINS = Path(__file__).parent / "plugins"
ASKS, COMMAND, WHERE, WORD, WORD_OF_MODULE = (
    PLUGINS / f"{name}.py"
    for name in ("asks", "command", "where", "word", "word_of_module")
)


class Place:
    """Folders of plugins: ours on shelves, and the owner's."""

    def __init__(self, folder: Path) -> None:
        self.own = folder / "plugins"
        self.ours = folder / "ours"
        for shelf in SHELVES:
            (self.ours / shelf).mkdir(parents=True)
        self.own.mkdir(exist_ok=True)

    def write(self, name: str, code: str | Path) -> Path:
        """A file of the owner's: "stats.py", "stats/__init__.py". It is a copy of
        another one, or has a line of its own."""
        return self._write(self.own / name, code)

    def write_ours(self, name: str, code: str | Path) -> Path:
        """A file on one of our shelves: "chat/stats.py"."""
        return self._write(self.ours / name, code)

    def _write(self, path: Path, code: str | Path) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(code if isinstance(code, str) else code.read_text(), "utf-8")
        return path

    def found(self) -> dict[str, tuple[str, str]]:
        """Kind and origin of each plugin."""
        plugins = find_plugins(self.own, self.ours)
        return {stem: (one.kind, one.origin) for stem, one in plugins.items()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def load(
    place: Place, make_app: MakeApp, make_settings: MakeSettings
) -> Callable[..., App]:
    return lambda **values: make_app(make_settings(**values), place.ours)


async def answers(app: App) -> list[str]:
    return await app.plugins.call("answer_job", job=make_job())


# What is found


def test_files_and_folders_are_plugins_and_underscores_libraries(place: Place) -> None:
    for name in (
        *("file.py", "folder/__init__.py", "folder/more.py", "my-plugin.py"),
        *("_library.py", "_folder/__init__.py", ".hidden.py", "notes/plan.py"),
        *("words.txt", "old.py.bak"),
    ):
        place.write(name, "")
    place.write_ours("chat/stats.py", "")
    place.write_ours("owner/web/__init__.py", "")
    place.write_ours("owner/_pages.py", "")
    assert place.found() == {
        "file": ("own", "yours"),
        "folder": ("own", "yours"),
        "my-plugin": ("own", "yours"),
        "stats": ("chat", "ours"),
        "web": ("owner", "ours"),
    }


def test_own_plugin_of_our_name_is_in_place_of_ours(place: Place) -> None:
    place.write_ours("chat/stats.py", "")
    place.write_ours("chat/ask.py", "")
    place.write_ours("owner/web/__init__.py", "")
    path = place.write("stats.py", "")
    place.write("ask/__init__.py", "")
    place.write("web.py", "")
    assert place.found() == dict.fromkeys(
        ("ask", "stats", "web"), ("own", "yours, in place of ours")
    )
    assert find_plugins(place.own, place.ours)["stats"].path == path


def test_file_and_folder_of_one_name_are_one_plugin(
    place: Place, load: Callable[..., App], logged: list[str]
) -> None:
    place.write("twice.py", "raise RuntimeError('the file')")
    place.write("twice/__init__.py", "")
    assert place.found() == {"twice": ("own", "yours")}
    app = load()
    assert not app.plugins.all["twice"].off
    assert not any("takes the place" in line for line in logged)


def test_stems_of_ours_are_unique_over_all_shelves() -> None:
    paths = [*OURS.glob("*/*.py"), *OURS.glob("*/*/__init__.py")]
    stems = Counter(
        path.parent.name if path.name == "__init__.py" else path.stem for path in paths
    )
    assert [stem for stem, count in stems.items() if count > 1] == []
    assert {path.relative_to(OURS).parts[0] for path in paths} <= set(SHELVES)
    assert not [*OURS.glob("*/__init__.py")], "a shelf is no plugin"


async def test_own_library_takes_the_place_of_ours_with_a_warning(
    place: Place, load: Callable[..., App], logged: list[str]
) -> None:
    place.write_ours("chat/a.py", WORD)
    place.write_ours("chat/_words.py", "WORD = 'ours'")
    for name in ("_other.py", "_words.txt", "hello/_words.py"):
        place.write(name, "")
    path = place.write("_words.py", "WORD = 'mine'")
    assert await answers(load()) == ["mine"]
    said = f"WARNING {path} takes the place of ours, for all plugins"
    assert [line for line in logged if "takes the place" in line] == [said]


def test_shelves_and_folders_of_plugins_are_the_same() -> None:
    folders = {path.name for path in OURS.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} <= set(SHELVES)
    assert plugin_folders(Path("/mine"))[0] == Path("/mine")
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert [
        f"!/plugins/{shelf}/"
        for shelf in SHELVES
        if f"!/plugins/{shelf}/" not in (ignored)
    ] == []


# In place of ours


async def test_own_file_of_our_name_takes_its_place_with_one_warning(
    place: Place, load: Callable[..., App], logged: list[str]
) -> None:
    place.write_ours("chat/stats.py", WHERE)
    path = place.write("stats.py", WHERE)
    app = load()
    assert await answers(app) == ["plugins"]
    assert [line for line in logged if "stats" in line] == [
        f"WARNING {path} takes the place of ours"
    ]
    path.unlink()
    app = load()
    assert await answers(app) == ["chat"]
    assert len([line for line in logged if "stats" in line]) == 1


async def test_settings_of_ours_go_to_what_takes_its_place(
    place: Place, load: Callable[..., App]
) -> None:
    place.write_ours("chat/stats.py", ASKS)
    size = "size: int = 1"
    edit(place.write("stats.py", ASKS), size, f"{size}\n    shape: str = ''")
    app = load(stats__size=3, stats__shape="round")
    assert app.plugins.all["stats"].config.model_dump() == {"size": 3, "shape": "round"}


async def test_own_file_that_is_broken_is_off_and_ours_stays_away(
    place: Place, load: Callable[..., App]
) -> None:
    place.write_ours("chat/stats.py", WHERE)
    place.write("stats.py", "import nowhere_at_all")
    app = load()
    stats = app.plugins.all["stats"]
    assert "nowhere_at_all" in stats.off and stats.origin == "yours, in place of ours"
    assert await answers(app) == []
    place.write("stats.py", WHERE)
    await app.reload("stats")
    assert await answers(app) == ["plugins"]
    (place.own / "stats.py").unlink()
    assert (await app.reload("stats")).origin == "ours"
    assert await answers(app) == ["chat"]


async def test_disabled_name_is_off_wherever_it_lies(
    place: Place, load: Callable[..., App], logged: list[str]
) -> None:
    place.write_ours("chat/stats.py", WHERE)
    place.write("stats.py", WHERE)
    app = load(disabled_plugins=["stats"])
    assert app.plugins.all["stats"].off == "disabled in the settings"
    assert await answers(app) == []
    assert not any("takes the place" in line for line in logged)


@pytest.mark.parametrize("name", [*SHELVES, "queue", "bossbot", "json", "discord"])
async def test_own_plugin_may_have_any_name(
    place: Place, load: Callable[..., App], name: str
) -> None:
    place.write_ours("chat/stats.py", WHERE)
    place.write(f"{name}.py", f"import json\n{WHERE.read_text()}")
    app = load()
    assert not app.plugins.all[name].off
    assert sorted(await answers(app)) == ["chat", "plugins"]


def test_folder_of_notes_with_our_name_is_in_nobodys_way(
    place: Place, load: Callable[..., App]
) -> None:
    place.write_ours("chat/stats.py", "")
    place.write("stats/notes.txt", "")
    app = load()
    assert (
        app.plugins.all["stats"].origin == "ours" and not app.plugins.all["stats"].off
    )


def test_what_cannot_be_read_is_off_and_hides_no_command(bare_home: Home) -> None:
    plugins = bare_home.path / "plugins"
    (plugins / "dangling.py").symlink_to(bare_home.path / "nowhere")
    (plugins / "folder.py").mkdir()
    bare_home.plugin("dotted.one", "")
    done = bare_home.run("plugins")
    assert done.returncode == 1
    for odd in (
        r"dangling +own +yours +off: \w+Error",
        r"folder +own +yours +off: \w+Error",
        r"dotted\.one +own +yours +off: its name has a dot in it",
    ):
        assert re.search(rf"^ *{odd}", done.stdout, re.MULTILINE), done.stdout
    done = bare_home.run("--help")
    assert (done.returncode, done.stderr) == (0, "") and "which" in done.stdout


# Folders and libraries


async def test_relative_import_in_a_folder_works_also_after_a_reload(
    place: Place, load: Callable[..., App]
) -> None:
    shutil.copytree(PLUGINS / "in_a_folder", place.own / "hello")
    place.write("_more.py", "MORE = ''")
    app = load()
    assert await answers(app) == ["one"]
    edit(place.own / "hello" / "deeper.py", "one", "another")
    await app.reload("hello")
    assert await answers(app) == ["another"]
    place.write("hello/words.py", "def greet(): return 'a third'")
    (place.own / "hello" / "deeper.py").unlink()
    await app.reload("hello")
    assert await answers(app) == ["a third"]


async def test_libraries_are_imported_by_the_owners_plugins_and_ours(
    place: Place, load: Callable[..., App]
) -> None:
    place.write("mine.py", WORD)
    place.write("_words.py", "WORD = 'own'")
    edit(place.write_ours("chat/stats.py", WORD), "_words", "_pages")
    edit(place.write("yours.py", WORD_OF_MODULE), "_words", "_pages")
    place.write_ours("owner/_pages/__init__.py", "from .page import WORD")
    place.write_ours("owner/_pages/page.py", "WORD = 'page'")
    app = load()
    assert await answers(app) == ["own", "page", "page"]


async def test_own_library_of_our_name_is_used_by_all(
    place: Place, load: Callable[..., App]
) -> None:
    place.write_ours("chat/stats.py", WORD)
    place.write_ours("parts/_words.py", "WORD = 'ours'")
    place.write("_words.py", "WORD = 'mine'")
    assert await answers(load()) == ["mine"]


async def test_library_is_read_again_with_a_plugin_that_imports_it(
    place: Place, load: Callable[..., App]
) -> None:
    for name in ("a", "b"):
        place.write(f"{name}.py", WORD)
    place.write("_words.py", "WORD = 'old'")
    app = load()
    place.write("_words.py", "WORD = 'brand new'")
    await app.reload("a")
    assert await answers(app) == ["brand new", "old"]


async def test_missing_or_broken_library_turns_only_its_importer_off(
    place: Place, load: Callable[..., App]
) -> None:
    place.write("a.py", WORD_OF_MODULE)
    place.write("b.py", WHERE)
    app = load()
    assert "_words" in app.plugins.all["a"].off and await answers(app) == ["plugins"]
    place.write("_words.py", "1 / 0")
    assert "ZeroDivisionError" in (await app.reload("a")).off
    place.write("_words.py", "")
    assert not (await app.reload("a")).off


# In the children


async def test_child_runs_the_owners_engine_in_place_of_ours_and_its_own_modules(
    place: Place, make_app: MakeApp, make_settings: MakeSettings
) -> None:
    link_plugins(place.ours, *PARTS, "yt_dlp")
    shutil.copytree(PLUGINS / "in_a_folder", place.own / "yt_dlp")
    place.write("_more.py", "MORE = ' and a library'")
    shutil.copy(SUPPORT_PLUGINS / "nowhere.py", place.own)
    app = make_app(make_settings(), place.ours)
    assert (await route(app, "https://toy.example/1")).engine == "yt-dlp"

    async def fetched() -> str:
        job = make_job(engine="yt-dlp")
        [file] = (await app.worker.fetch(job, lambda progress: None)).files
        return file.path.read_text()

    assert await fetched() == "one and a library"
    edit(place.own / "yt_dlp" / "deeper.py", "one", "changed")
    place.write("_more.py", "MORE = ' on disk'")
    assert await fetched() == "changed on disk"
    await app.reload("yt_dlp")
    assert await fetched() == "changed on disk"


# As the owner does it


def test_plugins_dir_elsewhere_still_has_ours(bare_home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    hello = Path(shutil.copy(COMMAND, elsewhere / "hello.py"))
    bare_home.add_plugin(COMMAND, "here")
    env = {"BOSS_BOT_PLUGINS_DIR": str(elsewhere)}
    assert bare_home.run("hello", env=env).stdout == f"{hello}\n"
    done = bare_home.run("plugins", env=env)
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["which"][1:3] == ["owner", "ours"]
    assert rows["hello"][1:3] == ["own", "yours"] and "here" not in rows
    assert "here" in bare_home.run("here", env=env).stderr


def test_plugins_lists_kind_and_origin(bare_home: Home) -> None:
    bare_home.add_plugin(COMMAND, "hello")
    which = bare_home.add_plugin(COMMAND, "which")
    done = bare_home.run("plugins")
    assert done.returncode == 0
    rows = {
        line.split()[0]: " ".join(line.split()[1:])
        for line in (done.stdout.splitlines())
    }
    assert rows["sqlite_queue"].startswith("parts (queue) ours on register_parts")
    assert rows["hello"] == "own yours on register_subcommands"
    assert rows["which"] == "own yours, in place of ours on register_subcommands"
    done = bare_home.run("which")
    assert done.stdout == f"{which}\n"
    assert done.stderr.count("takes the place of ours") == 1


def git(folder: Path, *words: str) -> str:
    """Runs git as a person would, with no settings of this machine."""
    name = ["-c", "user.name=Owner", "-c", "user.email=owner@example.org"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *name, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_plugins_survive_git_pull(bare_home: Home, tmp_path: Path) -> None:
    """An own stats.py beside a later one of ours with settings, and a changed copy of
    twitter.py."""
    shutil.copy(ROOT / ".gitignore", bare_home.path)
    upstream, plugins = bare_home.path, bare_home.path / "plugins"
    twitter = (OURS / "platforms" / "twitter.py").read_text("utf-8")
    (plugins / "platforms" / "twitter.py").write_text(twitter)
    git(upstream, "init", "-q")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(upstream), "clone")
    clone = Home(tmp_path / "clone")
    mine = clone.add_plugin(COMMAND, "stats")
    changed = twitter.replace("gallery-dl.", "gallery-dl, as I like it.")
    clone.plugin("twitter", changed)
    (clone.path / "plugins" / "hello").mkdir()
    hello = clone.add_plugin(COMMAND, "hello/__init__")
    clone.plugin("_mine", "")
    assert git(clone.path, "status", "--porcelain") == ""

    theirs = f"{COMMAND.read_text()}# theirs\n"
    (plugins / "owner" / "stats.py").write_text(theirs)
    (upstream / "config.toml").write_text("[plugins.stats]\nat_hour = 22\n")
    (plugins / "platforms" / "twitter.py").write_text(twitter + "# newer\n")
    git(upstream, "add", "-A")
    git(upstream, "commit", "-qm", "second")
    git(clone.path, "pull", "-q")

    assert (clone.path / "plugins" / "owner" / "stats.py").read_text() == theirs
    assert mine.read_text() == COMMAND.read_text()
    assert (clone.path / "plugins" / "twitter.py").read_text() == changed
    assert git(clone.path, "status", "--porcelain") == ""
    done = clone.run("stats")
    assert done.stdout == f"{mine}\n"
    assert done.stderr.count("plugins/stats.py takes the place of ours") == 1
    assert "twitter.py takes the place of ours" in done.stderr
    assert clone.run("hello").stdout == f"{hello}\n"
    git(clone.path, "clean", "-fdq")
    assert mine.is_file(), "git clean spares it"


@pytest.mark.parametrize("plugin", [WORD, WORD_OF_MODULE])
async def test_plugins_share_one_library_until_one_is_loaded_again(
    place: Place, load: Callable[..., App], plugin: Path
) -> None:
    word = "WORD" if plugin == WORD else "_words.WORD"
    place.write("_words.py", "WORD = ['old']")
    place.write("a.py", f"{plugin.read_text()}\n{word}.append('a')")
    place.write("b.py", plugin)
    app = load()
    assert await answers(app) == [["old", "a"], ["old", "a"]]
    place.write("_words.py", "WORD = ['brand new']")
    await app.reload("b")
    assert await answers(app) == [["old", "a"], ["brand new"]]
