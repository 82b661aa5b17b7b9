from __future__ import annotations

import os
import signal

from hypothesis import settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("moetui", deadline=None)
settings.load_profile("moetui")

# The tests use small matrices: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
