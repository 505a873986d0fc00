"""The data folder: made at the start, its files replaced whole."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from bossbot_plugins._files import write_atomically
from conftest import ROOT

from bossbot import StartError, prepare_data


def test_file_is_replaced_whole_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    write_atomically(path, b"one")
    path.chmod(0o644)
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["state.json"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from bossbot_plugins._files import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomically(Path(sys.argv[1]), bytes(100_000))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}"},
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["state.json"]


def test_data_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(StartError) as caught:
        prepare_data(tmp_path / "data")
    assert str(tmp_path / "data") in str(caught.value)
    assert "data_dir" in str(caught.value)
