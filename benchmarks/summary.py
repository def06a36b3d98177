"""Print the table of all speed benchmarks from their JSON files.

    python -m benchmarks.summary [FOLDER]

Each row says what was measured, our figure, others' figures, how many times as fast as the fastest
of them ours is, on which hardware, and when. Older files have no date.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import record

Content = Mapping[str, Any]


class Row(NamedTuple):
    """A line of the table, without hardware and date.

    Attributes:
      what: What was measured.
      ours: Our figure with its unit.
      others: Others' figures, or "–".
      ratio: How many times as fast as the fastest of the others; None without others.
    """

    what: str
    ours: str
    others: str = "–"
    ratio: float | None = None


# Contenders with the same network, and their names on the page.
PYTORCH = {"pytorch": "PyTorch eager", "pytorch_compiled": "PyTorch compiled"}


def _aupro(content: Content) -> Iterator[Row]:
    for row in content["rows"]:
        theirs = f"anomalib {row['seconds_anomalib']:.2f}"
        yield Row(f"AUPRO, {row['maps']}", f"{row['seconds']:.2f} s", theirs, row["times_as_fast"])


def _start(content: Content) -> Iterator[Row]:
    warm, cold = (content[f"first_step_seconds_{which}"] for which in ("warm", "cold"))
    yield Row(
        "time until the demo's first step", f"{warm:.0f} s ({cold:.0f} s with an empty cache)"
    )
    yield Row("share of training time spent waiting for data", f"{content['waited_for_data']:.2%}")


def _inference(content: Content) -> Iterator[Row]:
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in content["rows"]:
        key = row["method"], row["images"]
        found.setdefault(key, {})[row["contender"]] = row["ms_per_image"]
    peers = {
        count: {
            m: times["anomalib"]
            for (m, n), times in found.items()
            if "anomalib" in times and n == count
        }
        for _, count in found
    }
    for (method, count), times in found.items():
        if "anomalib" in times:
            continue
        ours = {name: ms for name, ms in times.items() if name not in PYTORCH}
        same = {PYTORCH[name]: ms for name, ms in times.items() if name in PYTORCH}
        # anomalib's models stop at the map and have other networks: shown, but not compared.
        others = same | peers[count]
        yield Row(
            f"image to mask with `{method}`, 256×256, {count} at a time",
            ", ".join(f"{name} {ms:.1f}" for name, ms in ours.items()) + " ms",
            ", ".join(f"{name} {ms:.1f}" for name, ms in others.items()),
            min(same.values()) / min(ours.values()),
        )


def _residuals(content: Content) -> Iterator[Row]:
    for row in content["rows"]:
        ms, share = row["ms_per_tile"], row["residual_of_network"]["products"]["best"]
        residual, before, network = (
            ms[name]["best"] for name in ("residual, products", "residual, shifts", "network")
        )
        yield Row(
            f"SSIM residual of `{row['method']}` in {row['runtime']}, 128×128, "
            f"{row['tiles']} at a time",
            f"{residual:.2f} ms per tile, {share:.0%} of the network's {network:.2f}",
            f"sums of shifted images {before:.2f}",
            before / residual,
        )


def _encoder(content: Content) -> Iterator[Row]:
    for row in content["rows"]:
        yield Row(
            f"encoder {row['encoder']} at {row['side']} px, {row['images']} at a time",
            f"{row['jax']:.1f} images/s",
            f"timm in PyTorch eager {row['timm']:.1f}",
            row["ratio"],
        )


def _registration(content: Content) -> Iterator[Row]:
    height, width = content["size"]
    ours, hough = content["ms_per_image"], content["opencv_guil"]["ms_per_image"]
    theirs = f"OpenCV's generalised Hough transform {hough:.0f}"
    yield Row(f"finding a part in {width}×{height} px", f"{ours:.0f} ms", theirs, hough / ours)


def _line(content: Content) -> Iterator[Row]:
    rate = content["undisturbed"]["images_per_second"]
    latency = content["undisturbed"]["paced"]["latency_s"]["median"]
    yield Row("undisturbed line", f"{rate:.1f} images/s, {1e3 * latency:.0f} ms from file to row")


def _frameworks(content: Content) -> Iterator[Row]:
    for row in content["rows"]:
        medians = {name: f"{figure['median']:.4g}" for name, figure in row["figures"].items()}
        ours = medians.pop("JAX")
        others = ", ".join(f"{name} {figure}" for name, figure in medians.items()) or "–"
        what = f"{row['what']} ({row['precision']})"
        yield Row(what, f"{ours} {row['unit']}", others, row.get("times_as_fast"))
    for name, value in content.items():
        if name.startswith("share of the SSIM"):
            # The difference from a step without SSIM is one of two medians and may be below 0.
            yield Row(name, f"{value['loss with gradient, by itself']:.0%}")


def _profile(content: Content) -> Iterator[Row]:
    for row in content["rows"]:
        largest = ", ".join(f"{cost['what']} {cost['share']:.0%}" for cost in row["largest"])
        yield Row(f"largest costs of a training step of `{row['method']}`", largest)


# By the name of the file, in the table's order.
TABLES: Mapping[str, Callable[[Content], Iterator[Row]]] = {
    "frameworks_cpu": _frameworks,
    "frameworks_gpu": _frameworks,
    "inference": _inference,
    "residuals": _residuals,
    "encoder": _encoder,
    "aupro": _aupro,
    "registration": _registration,
    "line": _line,
    "start": _start,
    "profile": _profile,
}


def table(folder: Path) -> str:
    """Return the table of all results in the folder, in Markdown."""
    lines = [["what", "ours", "others", "times as fast", "hardware", "measured"], ["---"] * 6]
    for name, rows in TABLES.items():
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text())
        where = content["hardware"], content.get("measured", "–")
        for row in rows(content):
            ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
            lines.append([row.what, row.ours, row.others, ratio, *where])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else record.RESULTS))
