"""Runs a command as on a slow disk: each sync (fsync, fdatasync) takes so long.

    python tests/tools/slow_disk.py --ms 30 python bossbot.py

A library, compiled by gcc when it is needed, is loaded before the command's own ones.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int slowly(const char *name, int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    const char *ms = getenv("SLOW_DISK_MS"), *log = getenv("SLOW_DISK_LOG");
    if (log) {
        int file = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (file >= 0) {
            if (write(file, "s", 1) != 1) abort();
            close(file);
        }
    }
    if (ms) usleep(1000 * atoi(ms));
    return real(fd);
}

int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
"""


def slow_disk(folder: Path, ms: int, log: Path | None = None) -> dict[str, str]:
    """The environment of a process whose syncs take that long; the library is made in
    the folder. The log grows by a byte with each sync."""
    source, library = folder / "slow_disk.c", folder / "slow_disk.so"
    source.write_text(SOURCE)
    gcc = ["gcc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"]
    subprocess.run(gcc, check=True)
    logging = {"SLOW_DISK_LOG": str(log)} if log else {}
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "SLOW_DISK_MS": str(ms),
        **logging,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ms", type=int, default=30)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = slow_disk(Path(folder), arguments.ms)
        sys.exit(subprocess.call(arguments.command, env=environment))
