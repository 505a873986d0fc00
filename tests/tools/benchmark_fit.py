"""Measures how files are made to fit; a part of benchmark.py, or by itself:

    python tests/tools/benchmark_fit.py [seconds of the clip, 60 if none are given]

The same clip goes through ffmpeg as anyone calls it, and through the plugin, by turns.
"""

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from loguru import logger

import bossbot
from bossbot import App, Job, MediaFile, Settings

MIB = 2**20
Show = Callable[[str, str, str], None]
# A picture of 1080p that is neither still nor mere noise, and about 8 Mbit/s.
PATTERN = "testsrc2=s=1920x1080:r=30,rotate=0.1*sin(t),noise=alls=3:allf=t"


def ffmpeg(*words: str | Path) -> str:
    """Run it as anyone does; returns what it printed."""
    command = ["ffmpeg", "-nostdin", "-hide_banner", "-y", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr


def clip(folder: Path, length_s: int) -> Path:
    """A video of 1080p with 1 MB a second."""
    path = folder / "clip.mp4"
    sources = ["-f", "lavfi", "-i", PATTERN, "-f", "lavfi", "-i", "sine=440"]
    how = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "7900k", "-c:a", "aac"]
    length = ["-t", str(length_s), "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    ffmpeg(*sources, *length, *how, path)
    return path


class Fitter:
    """The plugin at work, as in the bot."""

    def __init__(self, folder: Path) -> None:
        (folder / "own").mkdir()
        values = {"data_dir": folder / "data", "plugins_dir": folder / "own"}
        self.app = App(Settings(**values))
        self.app.plugins.load()
        bossbot.prepare_data(self.app.settings.data_dir)
        self.count = 0

    async def fit(self, source: Path, limit: int) -> tuple[MediaFile, float]:
        """The file made of another one, and how many seconds that took."""
        bench = bossbot.import_plugin("_bench")
        self.count += 1
        job = Job(id=f"{self.count:010}", url="", limit_bytes=limit, claim_number=1)
        folder = await self.app.storage.attempt_folder(job) / "files"
        path = folder / source.name
        os.link(source, path)
        file = await self.app.storage.inspect(path, folder)
        table = bench.JobBench(self.app, job, folder, lambda progress: None)
        values = {"job": job, "files": [file], "bench": table}
        began_s = time.perf_counter()
        [made] = await self.app.plugins.fold("process_files", "files", **values)
        return made, time.perf_counter() - began_s


def measures(path: Path) -> list[str]:
    """The width, the height and the bits a second of a video."""
    words = ["-v", "error", "-select_streams", "v", "-of", "csv=p=0"]
    command = ["ffprobe", *words, "-show_entries", "stream=width,height,bit_rate"]
    done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
    return done.stdout.strip().split(",")


def ssim(path: Path, source: Path, size: str) -> float:
    """How like another video a video is, at most 1."""
    graph = f"[1]scale={size}[a];[0][a]ssim"
    said = ffmpeg("-i", path, "-i", source, "-lavfi", graph, "-f", "null", "-")
    return float(re.findall(r"All:([\d.]+)", said)[-1])


async def made_to_fit(folder: Path, show: Show, length_s: int = 60) -> Path:
    """Shows what the work on one clip costs; returns the clip."""
    source = await asyncio.to_thread(clip, folder, length_s)
    fitter = Fitter(folder)
    await fitter.app.runner.start()
    try:
        limit = 20 * MIB * length_s // 60
        made, took_s = await fitter.fit(source, limit)
        assert not made.failure, made.failure
        width, height, bps = await asyncio.to_thread(measures, made.path)
        plain = folder / "plain.mp4"
        how = ["-vf", f"scale={width}:{height}", "-c:v", "libx264", "-b:v", bps]
        rest = ["-preset", "veryfast", "-c:a", "aac", "-b:a", "128k", plain]
        began_s = time.perf_counter()
        await asyncio.to_thread(ffmpeg, "-i", source, *how, *rest)
        plain_s = time.perf_counter() - began_s
        what = f"{length_s} s of 1080p, {source.stat().st_size / MIB:.0f} MiB"
        ratio = f"{took_s / plain_s:.2f} ({took_s:.0f} s to {plain_s:.0f} s)"
        show(f"{what}, made to fit: time to that of plain ffmpeg", ratio, "1.25")
        share = f"{made.size / limit:.1%}"
        show("its size, of the limit", share, "90 % to 100 %")
        like = [
            await asyncio.to_thread(ssim, one, source, f"{width}:{height}")
            for one in (made.path, plain)
        ]
        sizes = f"{made.size / plain.stat().st_size:.3f} of its bytes"
        text = f"{like[0]:.4f} to {like[1]:.4f}, with {sizes}"
        show("its SSIM to that of plain ffmpeg", text, "not lower")
        times = []
        for _ in range(21):
            same, decided_s = await fitter.fit(source, 1000 * MIB)
            assert same.path.samefile(source), "it was touched"
            times.append(decided_s * 1000)
        median = f"{statistics.median(times):.1f} ms, {max(times):.1f} ms at most"
        show("a file that fits and plays: time to decide", median, "100 ms")
    finally:
        await fitter.app.stop()
    return source


async def main() -> None:
    logger.remove()
    length_s = int(sys.argv[1]) if sys.argv[1:] else 60
    with tempfile.TemporaryDirectory() as scratch:
        await made_to_fit(Path(scratch), lambda *row: print(*row, sep=" | "), length_s)


if __name__ == "__main__":
    asyncio.run(main())
