"""Memory of this process: how much it has, and what freed arrays left in the allocator."""

import ctypes
import os
import sys
from pathlib import Path


def give_back() -> None:
    """Hands free pages back to the system, where the C library can (glibc).

    Decoders and compilers work in threads, and glibc keeps what each thread has freed: several
    hundred MiB after a training, beside which large images would not fit.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def resident() -> int:
    """Returns the bytes of memory that the process has; 0 where the system does not say (Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
