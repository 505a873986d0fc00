"""The helper programs that downloads may start: ffmpeg and a JavaScript runtime."""

import os
import shutil
import sys
from pathlib import Path

JS_RUNTIMES = ("deno", "node", "bun", "qjs")  # the better ones first


def find_programs() -> dict[str, str]:
    """The helper programs on this machine: name and absolute path."""
    folders = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    names = ("ffmpeg", "ffprobe", *JS_RUNTIMES)
    found = {name: shutil.which(name, path=folders) for name in names}
    return {name: os.path.realpath(path) for name, path in found.items() if path}
