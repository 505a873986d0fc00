"""Work that blocks the event loop until the log says so."""

import time


def work(logged):
    for _ in range(1000):
        if any("is blocked" in line for line in logged):
            break
        time.sleep(0.01)
