"""Times of lines in the log of a command of the package, from the start of its process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def log_times(
    command: Sequence[str], cache: Path, *, lines: Mapping[str, str]
) -> tuple[dict[str, float], float]:
    """Run a command, and return the seconds until each line of its log and until its end.

    Args:
      command: Module and arguments.
      cache: Folder of its compilation cache.
      lines: Patterns with which lines begin, by name. The first such line counts.

    Returns:
      Seconds by name, in the order of the log and without the lines that it lacks, and in all.

    Raises:
      RuntimeError: If the command fails.
    """
    begin = time.perf_counter()
    seconds: dict[str, float] = {}
    log: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    ) as process:
        assert process.stderr is not None, "it is a pipe"
        for line in process.stderr:
            log.append(line)
            for name, pattern in lines.items():
                if name not in seconds and re.match(pattern, line):
                    seconds[name] = time.perf_counter() - begin
    if process.returncode:
        raise RuntimeError("".join(log[-5:]))
    return seconds, time.perf_counter() - begin
