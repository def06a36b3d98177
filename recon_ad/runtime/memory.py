"""Memory that freed arrays left in the allocator."""

import ctypes
import sys


def give_back() -> None:
    """Hands free pages back to the system, where the C library can (glibc).

    Decoders and compilers work in threads, and glibc keeps what each thread has freed: several
    hundred MiB after a training, beside which large images would not fit.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
