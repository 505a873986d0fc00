"""Says the language of the moment, after time that does not count; then it may block."""

import threading
import time

from bossbot import hookimpl, language, off_the_clock, time_left_s

go_on = threading.Event()


@hookimpl
def process_files(files: list[int]) -> list[str]:
    with off_the_clock():
        assert time_left_s() is None
        time.sleep(0.4)
    assert 0 < time_left_s() < 0.3
    if files:
        go_on.wait(60)
    return [language.get()]
