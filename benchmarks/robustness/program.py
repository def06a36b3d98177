"""Trials of damaged images and metadata, read by the C++ program under sanitizers and by Python.

The code is compiled with AddressSanitizer and UndefinedBehaviorSanitizer, which end the process at
the first fault. This does not work for the whole program, because OpenVINO loads its libraries in a
way that AddressSanitizer rejects. program.cpp therefore calls only the code that opens files.
"""

import random
import subprocess
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.robustness.damage import damaged
from benchmarks.robustness.detectors import IMAGE, small_detector
from benchmarks.robustness.images import whole_files, write_damaged
from benchmarks.robustness.trials import STRICTER, Verdict
from recon_ad.data.decode import decode_image, decode_mask
from recon_ad.detector.onnx_detector import OnnxDetector, tail_path
from recon_ad.detector.onnx_export import export
from recon_ad.detector.runtimes import Graph, OnnxRuntimeGraph
from recon_ad.errors import UserError

SOURCE = Path("deploy/cpp/src")
WITH_INFERENCE = ("main.cpp", "detector.cpp")  # not compiled here
FLAGS = (
    "-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip
REQUESTS = 500  # requests per process
LIBRARIES = ("-lpng", "-ljpeg", "-lz")
READ = (".png", ".jpeg")  # kinds that the program reads; it refuses others by their name


class Program:
    """The compiled code as a process, restarted regularly because leaks are reported at its end.

    Raises:
      UserError: If the code cannot be compiled.
    """

    def __init__(self, folder: Path):
        self._binary = folder / "program"
        sources = [Path(__file__).with_suffix(".cpp"), *sorted(SOURCE.glob("*.cpp"))]
        kept = [file for file in sources if file.name not in WITH_INFERENCE]
        command = ["c++", *FLAGS, f"-I{SOURCE}", *kept, "-o", self._binary, *LIBRARIES]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"the C++ program cannot be compiled ({error}): install the packages listed in "
                "deploy/cpp/README.md."
            ) from None
        self._said = folder / "said"
        self._asked = 0
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        with self._said.open("w") as said:
            return subprocess.Popen(
                [self._binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
                text=True, errors="backslashreplace",
            )  # fmt: skip

    def ask(self, request: str) -> str:
        """Return the answer, or "crash" with the sanitizer's message."""
        to, of = self._process.stdin, self._process.stdout
        assert to is not None and of is not None, "both are pipes"
        to.write(request + "\n")
        to.flush()
        answer = of.readline().rstrip("\n")
        self._asked += 1
        if answer and self._asked < REQUESTS:
            return answer
        to.close()
        status = self._process.wait()
        of.close()
        said = self._said.read_text(errors="backslashreplace")
        self._asked, self._process = 0, self._started()
        if not status:
            return answer
        lines = [line.strip() for line in said.splitlines() if "error" in line.lower()]
        return f"crash {' '.join(lines)[:300]}"


def _described(array: np.ndarray, type_name: str) -> str:
    channels = 1 if array.ndim == 2 else array.shape[2]
    crc = zlib.crc32(np.ascontiguousarray(array).tobytes())
    return f"accepted {array.shape[0]} {array.shape[1]} {channels} {type_name} {crc}"


def _by_python(kind: str, file: Path) -> str:
    try:
        if kind == "mask":
            return _described(decode_mask(file), "mask")
        image = decode_image(file, channels=3)
        return _described(image, image.dtype.name)
    except UserError as error:
        return f"refused {error}"


def _verdict(ours: str, python: str, what: str) -> Verdict:
    """Compare the program's answer with Python's.

    The program may refuse files that Python reads; libpng, for example, needs the whole file. If
    the program reads a file, the pixels must be the same as Python's.
    """
    word = ours.split()[0]
    if word == "crash":
        return word, f"{what}: {ours}"
    if word == "refused":
        return "refused" if python.startswith(word) else STRICTER, what
    if "progressive" in what:
        # If scans are missing, versions of libjpeg smooth differently, by a few levels.
        ours, python = (answer.rpartition(" ")[0] for answer in (ours, python))
    return ("accepted" if ours == python else "wrong"), f"{what}: {ours}; Python: {python}"


def images(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of one damaged PNG or JPEG each, read as an image or as a mask."""
    program = Program(folder)
    files = {name: c for name, c in whole_files().items() if name.endswith(READ)}

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        name, file = write_damaged(folder, files, rng)
        kind = rng.choice(("image", "image", "mask"))
        what = f"trial {i}: a damaged {name} as {kind}"
        return _verdict(program.ask(f"{kind} {file}"), _by_python(kind, file), what)

    return trial


class _Metadata(Graph):
    """A graph with metadata and outputs that cannot be run."""

    def __init__(self, facts: Mapping[str, str], outputs: Sequence[str]):
        self.facts, self.outputs = dict(facts), outputs

    def run(self, wanted: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Raise NotImplementedError."""
        raise NotImplementedError


def facts(folder: Path, seed: int) -> Callable[[int], Verdict]:
    """Make trials of an exported model's metadata with one damaged entry."""
    program = Program(folder)
    model = folder / "m.onnx"
    export(small_detector(), model, [IMAGE])
    core, tail = OnnxRuntimeGraph(model), OnnxRuntimeGraph(tail_path(model))
    lines = [f"{name}={value}".encode() for name, value in sorted(core.facts.items())]

    def trial(i: int) -> Verdict:
        rng = random.Random(seed * 1_000_003 + i)
        made = list(lines)
        at = rng.randrange(len(made))
        made[at] = damaged(made[at], rng, others=lines).replace(b"\n", b"")
        # Python sees only text, because that is what the runtimes return.
        made = [line.decode(errors="replace") for line in made]
        file = folder / "facts"
        file.write_text("\n".join(made))
        given = dict(line.split("=", 1) for line in made if "=" in line)
        what = f"trial {i}: damaged metadata, {made[at]!r}"
        ours = program.ask(f"facts {file}")
        try:
            # The tail's pair always matches, because that check is not part of the tested code.
            pair = {"pair": given.get("pair", "")}
            of_tail = _Metadata({**tail.facts, **pair}, tail.outputs)
            OnnxDetector(_Metadata(given, core.outputs), of_tail, name="model")
        except UserError as error:
            return _verdict(ours, f"refused {error}", what)
        return _verdict(ours, "accepted", what)

    return trial
