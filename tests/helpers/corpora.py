"""Corpora of trials with every verdict, for tests of the code that runs trials."""

import os
import signal
import time


def of_all_kinds(folder, seed):
    """Make trials: the third crashes, the fourth hangs, the fifth raises, the sixth is wrong."""

    def trial(i):
        if i == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if i == 3:
            time.sleep(60)
        if i == 4:
            raise ValueError("odd")
        return {1: "refused", 5: "wrong"}.get(i, "accepted"), f"trial {i}"

    return trial


def unprepared(folder, seed):
    """Fail, as a corpus that cannot be prepared."""
    raise OSError("no room")
