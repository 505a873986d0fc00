"""The guard around yt-dlp, through both engines, and called directly."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import media
import pytest
from bossbot_plugins._programs import JS_RUNTIMES
from bossbot_plugins._yt_dlp_guard import MEDIA, fixed_options
from engine_lab import ROOT, Got, Lab, Labs
from sites import Sites
from sites_canned.reddit import Reddit

from bossbot import Request

pytest_plugins = ("engine_fixtures",)

# Before the engine starts: a request handler and a plugin that must not be used, and a
# record of the programs that start. Before the download: attempts to start one.
SETUP = """if True:
    import os, pathlib, subprocess, sys
    from yt_dlp import YoutubeDL
    from yt_dlp.globals import all_plugins_loaded, plugin_dirs
    from yt_dlp.networking.common import _REQUEST_HANDLERS
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
    from yt_dlp.utils import Popen

    handler = type("CurlCFFIRH", (_REQUEST_HANDLERS["Urllib"],), {})
    _REQUEST_HANDLERS["CurlCFFI"] = handler
    plugin_dirs.value, all_plugins_loaded.value = ["default"], False
    folder = pathlib.Path(".config/yt-dlp/plugins/a/yt_dlp_plugins/extractor")
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("print('plugin loaded')")
    program = pathlib.Path("program")
    program.write_text("#!/bin/sh\\necho program ran\\n")
    program.chmod(0o755)
    video, trap = pathlib.Path("video.mp4"), pathlib.Path("trap.mp4")
    tone = ["-f", "lavfi", "-i", "sine=d=0.1", "-y", str(video)]
    subprocess.run(["ffmpeg", "-v", "error", *tone], check=True)
    trap.write_text("ffconcat version 1.0\\nfile video.mp4\\n")
    start, process = subprocess.Popen.__init__, YoutubeDL.process_info

    def spy(self, argv, *rest, **how):
        print("started", *argv, flush=True)
        start(self, argv, *rest, **how)

    def attempt(self, info):
        for argv in ([str(program.resolve())], ["sh", "-c", "echo program ran"]):
            try:
                Popen.run(argv)
            except FileNotFoundError as error:
                print("refused", error.filename)
        probe = FFmpegPostProcessor(self)
        for path in (video, trap):
            streams = probe.get_metadata_object(str(path.resolve())).get("streams")
            print("probed", path.name, len(streams or ()))
        print("handlers", *self._request_director.handlers)
        return process(self, info)

    subprocess.Popen.__init__, YoutubeDL.process_info = spy, attempt
"""


@pytest.fixture(params=["gallery_dl", "yt_dlp"])
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs(request.param)


@pytest.fixture
def got(lab: Lab, media_of_two_streams: tuple[Path, Path], tmp_path: Path) -> Got:
    """A video of two streams, fetched by yt-dlp within either engine."""
    with Sites() as sites:
        url = Reddit(sites).video("aa6", *media_of_two_streams)
        if lab.stem == "yt_dlp":
            url = "https://v.redd.it/aa6/DASHPlaylist.mpd"
        return lab.fetch(url, tmp_path, environment=sites.environment, setup=SETUP)


@pytest.fixture(scope="module")
def media_of_two_streams(media_folder: Path) -> tuple[Path, Path]:
    picture = media.video(media_folder, sound=False)
    return picture, media.video(media_folder, picture=False)


def test_yt_dlp_stays_confined_in_both_engines(got: Got) -> None:
    assert (got.cause, got.names) == (None, ["job_1_temp_0001.mp4"])
    log = got.log.splitlines()
    refused = [line.split("/")[-1] for line in log if line.startswith("refused")]
    assert refused == ["program", "refused sh"]
    assert "program ran" not in log
    started = [line.split() for line in log if line.startswith("started")]
    assert {Path(argv[1]).name for argv in started} == {"ffmpeg", "ffprobe"}
    for argv in (argv for argv in started if "-show_streams" in argv):
        assert f"-protocol_whitelist file -format_whitelist {MEDIA}" in " ".join(argv)
    # The trap names the video, which ffprobe must not open for it.
    assert [line for line in log if line.startswith("probed")] == [
        "probed video.mp4 1",
        "probed trap.mp4 0",
    ]
    [joining] = [argv for argv in started if "-i" in argv]
    assert joining.count("-i") == 2
    before_first = joining[: joining.index("-i")]
    between = joining[joining.index("-i") : -joining[::-1].index("-i")]
    for options in (" ".join(before_first), " ".join(between)):
        assert f"-protocol_whitelist file -format_whitelist {MEDIA}" in options
    assert "plugin loaded" not in log
    [handlers] = [line for line in log if line.startswith("handlers")]
    assert "Urllib" in handlers and "CurlCFFI" not in handlers


Run = Callable[[str], str]


@pytest.fixture
def run(labs: Labs, tmp_path: Path) -> Run:
    """Runs a script where yt-dlp is warm; returns what it prints."""
    return lambda code: labs("yt_dlp").run(code, tmp_path)


def test_a_second_guard_replaces_the_first(run: Run) -> None:
    script = """if True:
        import bossbot, pathlib

        def guard(program):
            # Imported again each time, as a child does after the fork server.
            module = bossbot.import_plugin("_yt_dlp_guard")
            programs = {"ffmpeg": program}
            request = bossbot.Request("", pathlib.Path(), "", programs=programs)
            module.guard_yt_dlp(request)

        guard("/bin/false")
        guard("/bin/echo")
        from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor
        from yt_dlp.utils import Popen
        print(Popen.run(["/bin/echo", "once"], stdout=-1, text=True)[0].strip())
        try:
            Popen.run(["/bin/false"])
        except FileNotFoundError:
            print("refused")
        run = FFmpegPostProcessor.real_run_ffmpeg
        for depth in range(3):
            run = getattr(run, "__wrapped__", None)
            print("guarded" if run else "end")
            if not run:
                break"""
    assert run(script).split() == ["once", "refused", "guarded", "end"]


def test_a_javascript_runtime_gets_the_memory_it_needs(run: Run) -> None:
    script = """if True:
        import bossbot, pathlib, resource
        from bossbot_plugins._programs import find_programs
        from bossbot_plugins._yt_dlp_guard import guard_yt_dlp
        programs = find_programs()
        limits = (384 * 2**20, 1408 * 2**20)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        guard_yt_dlp(bossbot.Request("", pathlib.Path(), "", programs=programs))
        from yt_dlp.utils import Popen
        code = "const all = []; for (let i = 0; i < 42; i++) "
        code += "all.push(new Uint8Array(1e7).fill(1)); console.log(all.length)"
        print(Popen.run([programs["deno"], "eval", code], stdout=-1, text=True)[0])
        print(resource.getrlimit(resource.RLIMIT_DATA) == limits)"""
    assert run(script).split() == ["42", "True"]


def test_yt_dlp_supports_every_runtime_of_the_request() -> None:
    import yt_dlp  # noqa: F401 - it registers what it supports
    from yt_dlp.globals import supported_js_runtimes

    programs = {name: f"/usr/bin/{name}" for name in JS_RUNTIMES}
    options = fixed_options(Request("", Path(), "", programs=programs))
    assert options["js_runtimes"].keys() == supported_js_runtimes.value.keys()


LEFT_OUT = """
import sys
import bossbot
bossbot.open_plugins([*bossbot.OURS.iterdir()])
from bossbot_plugins._yt_dlp_guard import leave_out
leave_out()
import requests
from yt_dlp.aes import aes_cbc_decrypt_bytes
print("charset_normalizer.api" in sys.modules)
print(len(aes_cbc_decrypt_bytes(bytes(32), bytes(16), bytes(16))))
answer = requests.Response()
answer._content = ("Привет, как дела? " * 20).encode("cp1251")
print(answer.text[:6])
"""


def test_rarely_used_libraries_are_imported_when_they_are_used() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OUT],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert ran.stdout.split() == ["False", "32", "Привет"], ran.stderr
