"""Memory of this process: its size, and the return of freed pages to the system."""

import ctypes
import os
import sys
from pathlib import Path


def give_back() -> None:
    """Return free pages to the system if the C library can (glibc).

    Decoders and compilers run in threads, and glibc keeps the memory that each thread has freed.
    After a training that is several hundred MiB, which large images may need.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def resident() -> int:
    """Return the bytes of memory of this process, or 0 if the system does not tell (Linux does)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
