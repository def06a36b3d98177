"""Trials in separate processes, so that a crash or a hang is counted and the others still run.

A corpus makes trials: `corpus(folder, seed)` prepares what they share and returns `trial(i)`, which
tries the i-th damaged input and returns a verdict and a description of the input.
"""

import importlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATIENCE = 10.0  # s without output after which a trial counts as hanging
START = 120.0  # s for the preparation of a corpus
SHOWN = 10  # examples of each fault
STRICTER = "refused by the program alone"  # by the C++ program, while Python accepts it
FAULTS = ("crash", "hang", "traceback", "wrong")

Verdict = tuple[str, str]  # "refused", "accepted", "traceback" or "wrong"; description of the input
Corpus = Callable[[Path, int], Callable[[int], Verdict]]


def run_trials(corpus: str, count: int, *, seed: int) -> dict[str, Any]:
    """Run the trials 0 … count - 1 of a corpus, and count verdicts with examples of faults.

    Args:
      corpus: Module and function, such as "benchmarks.robustness.images:images".
      count: Number of trials.
      seed: Seed of the damage.

    Raises:
      RuntimeError: If the corpus could not be prepared.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    done = 0
    while done < count:
        for verdict, what in _process(corpus, seed, done, count):
            done += 1
            counts[verdict] += 1
            if verdict in FAULTS and len(examples.setdefault(verdict, [])) < SHOWN:
                examples[verdict].append(what)
    none = dict.fromkeys(FAULTS, 0)
    return {"tried": done, **none, **counts, "examples": examples}


def _process(corpus: str, seed: int, first: int, count: int) -> Iterator[Verdict]:
    """Yield the verdicts of one process; the last is "crash" or "hang" if it ended too early."""
    command = [sys.executable, "-m", __name__, corpus, str(seed), str(first), str(count)]
    lines: queue.Queue[str] = queue.Queue()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, folder], stdout=subprocess.PIPE, text=True) as process,
    ):
        stdout = process.stdout
        assert stdout is not None, "it is a pipe"

        def listen() -> None:
            for line in stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=listen, daemon=True).start()
        place, patience, ready = first, START, False
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                process.kill()
                yield "hang", f"trial {place}"
                return
            if not line:
                break
            patience = PATIENCE
            verdict, what = json.loads(line)
            if ready:
                place += 1
                yield verdict, what
            ready = True
        if not ready:
            raise RuntimeError(f"{corpus} could not be prepared: exit status {process.wait()}")
        if process.wait() != 0 or place < count:
            yield "crash", f"trial {place}: exit status {process.returncode}"


def main(corpus: str, seed: str, first: str, count: str, folder: str) -> None:
    """Run trials in this process and write a line of JSON for each."""
    module, _, name = corpus.partition(":")
    # The output of libraries goes to stderr.
    out, sys.stdout = sys.stdout, sys.stderr
    trial = getattr(importlib.import_module(module), name)(Path(folder), int(seed))

    def tell(verdict: str, what: str) -> None:
        out.write(json.dumps([verdict, what]) + "\n")
        out.flush()

    tell("ready", "")
    for i in range(int(first), int(count)):
        try:
            tell(*trial(i))
        except Exception:
            last = traceback.format_exc().strip().splitlines()[-3:]
            tell("traceback", f"trial {i}: {' | '.join(map(str.strip, last))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
