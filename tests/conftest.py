from __future__ import annotations

import gc
import os
import signal

from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("moetui", deadline=None)
settings.load_profile("moetui")

# The tests use small matrices: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What a screen leaves behind lies in circles, beside a million objects of libraries that stay. To look for it as often
# as Python does takes a fifth of the screens' time.
gc.set_threshold(50_000, 20, 20)

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: a fifth of the time, a test waits for another process or for a timer.

    More than four only build the same models again.
    """
    return min((os.cpu_count() or 1) + 1, 4)
