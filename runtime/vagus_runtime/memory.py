"""A long-running process that stays small: settings of the C library, and one of Python's garbage collector."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

# malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE: Final = 64 * 1024
# New objects before a collection, and collections of a younger generation before one of the next: all that is not
# settled is seen after some 1,000 more objects, in a millisecond. Python's own 700, 10 and 10 are for programs whose
# old objects are many; what waits as garbage until then, the process keeps as memory.
_THRESHOLDS: Final = (250, 3, 1)


def one_heap() -> bool:
    """Let all threads allocate from one heap, and nothing large from it; call it before the first thread starts. False:
    not this C library's.

    glibc gives each thread a heap of its own, whose free parts no other thread can use. Our threads mostly wait. And
    once a large block was freed, it takes blocks of that size from the heap too: a buffer of 256 KiB for a few bytes,
    some times a second, leaves holes there that are never given back.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(set_option(_M_ARENA_MAX, 1) and set_option(_M_MMAP_THRESHOLD, _LARGE))


def settle() -> None:
    """Take everything that exists now for good; call it after imports and set-up. What comes later is little: it is
    looked at whole, and often.

    Python looks for old garbage only when a quarter as much again has come up. With a hundred thousand objects of
    imported modules among what is counted, that is megabytes of garbage, and a long pause on a small machine.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
