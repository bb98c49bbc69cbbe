"""A server that a program has started for itself ends with that program, however that ends (`ramify serve --end-with-parent`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

LAST_RESORT_S = 10.0
"""Seconds that an orderly end may take once nobody is left to wait for it."""


def end_with_parent() -> None:
    """From now on, end when the parent does: the kernel sends SIGTERM on Linux, and standard input, a pipe whose other end
    the parent holds, closes everywhere.

    Either is a SIGTERM, so both together are the second signal, the one that does not wait for requests to end. Call it in
    the main thread before anything long starts; nothing else may read standard input.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    threading.Thread(target=_watch, daemon=True, name="ramify-parent-watch").start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_RESORT_S)
    os.kill(os.getpid(), signal.SIGKILL)
