"""Checkpoints of a training run: asynchronous, atomic, the latest and the best.

A checkpoint at step s is the state after s steps with the run's bookkeeping (plain JSON). Orbax
writes into a temporary directory and renames it, so a killed run leaves no half-written checkpoint.
The bookkeeping contains a digest of both: a checkpoint that was damaged later is set aside, and the
previous one is used. Every host calls all of these functions. Any number of hosts and devices can
restore a checkpoint.
"""

import copy
import hashlib
import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from recon_ad.errors import UserError
from recon_ad.runtime import mesh as meshes

DIGEST = "sha256"  # key in the bookkeeping of the digest of the state and all other entries

logger = logging.getLogger("recon_ad")


class Checkpoints:
    """Checkpoints in one directory.

    Args:
      directory: Directory of the checkpoints, created if absent.
    """

    def __init__(self, directory: Path):
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(2),
                policies.BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1),
            ]
        )
        self._directory = directory.absolute()
        if self._directory.is_file():
            raise UserError(f"{directory} is a file: move it away, or choose another --workdir.")
        if meshes.is_first_host():
            self._set_unranked_aside()
        meshes.wait_for_all()  # otherwise another host might list a folder that is being moved
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                # BestN keeps the best checkpoint; best_step() uses these two.
                best_fn=lambda metrics: metrics["loss"],
                best_mode="min",
                # Otherwise, threads wait for a directory that cannot be created, and a failed
                # training takes minutes to end.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def save(self, step: int, state: PyTree, book: dict[str, Any], *, loss: float) -> None:
        """Start writing and return before the checkpoint is on disk.

        `loss` (held-out) ranks checkpoints. It is infinite if it was not measured.
        """
        # Copied, because it is written while training continues.
        kept = copy.deepcopy(book) | {DIGEST: digest_of(state, book)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), book=ocp.args.JsonSave(kept))
        self._manager.save(step, args=items, metrics={"loss": loss})

    def latest(self, like: PyTree) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Return step, state and bookkeeping of the newest undamaged checkpoint, or None.

        The result is the same on every host. `like` defines the shapes, types and shardings.
        """
        while step := meshes.broadcast_from_first(self._manager.latest_step() or 0):
            state, book, damage = self._read(step, like)
            # Only one host may fail to read it, but all must use the same checkpoint.
            damage = next(filter(None, meshes.all_gather(damage)), "")
            if not damage:
                return step, state, book
            meshes.on_first_host(lambda step=step: self._set_aside(step))
            self._manager.reload()
            self._tell(step, damage)
        return None

    @property
    def _aside(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}.damaged")

    def _set_unranked_aside(self) -> None:
        """Set aside checkpoints with unreadable held-out losses, which Orbax does not tolerate."""
        for file in self._directory.glob("*/metrics/metrics"):
            name = file.parts[-3]
            if not name.isdecimal():  # left unfinished by a killed run; Orbax deletes it
                continue
            try:
                float(json.loads(file.read_text())["loss"])
            except (OSError, ValueError, LookupError, TypeError) as error:
                self._set_aside(int(name))
                self._tell(int(name), f"{type(error).__name__}: {error}")

    def _tell(self, step: int, damage: str) -> None:
        logger.warning(
            "the checkpoint of step %d is damaged (%s) and was moved to %s; the previous one is "
            "used", step, damage, self._aside,
        )  # fmt: skip

    def _set_aside(self, step: int) -> None:
        self._aside.mkdir(exist_ok=True)
        name = f"{step}-{uuid.uuid4().hex[:8]}"  # the same step may be damaged again
        (self._directory / str(step)).rename(self._aside / name)

    def best(self) -> int | None:
        """Return the step with the lowest held-out loss, or None; it is the same on every host."""
        self._manager.wait_until_finished()
        return meshes.broadcast_from_first(self._manager.best_step() or 0) or None

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Return the state of a step; `like` defines the shapes, types and shardings.

        Raises:
          UserError: If the checkpoint is damaged.
        """
        self._manager.wait_until_finished()
        state, _, damage = self._read(step, like)
        if damage:
            raise UserError(
                f"the best checkpoint, of step {step} in {self._directory}, is damaged "
                f"({damage}): delete that folder and run the same command again to retrain."
            )
        return state

    def _read(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any], str]:
        """Return the state, the bookkeeping, and a description of the damage or ""."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), book=ocp.args.JsonRestore()
        )
        try:
            with _silent_tasks():
                restored = self._manager.restore(step, args=items)
            state, book = restored["state"], dict(restored["book"])
        except (jax.errors.JaxRuntimeError, MemoryError):  # an error of the device, not the files
            raise
        except Exception as error:  # Orbax raises plain Exception if a chunk does not decode
            return None, {}, f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if book.pop(DIGEST, None) != digest_of(state, book):
            return None, {}, "its digest does not match"
        return state, book, ""

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


@contextmanager
def _silent_tasks() -> Iterator[None]:
    """Drop what asyncio logs of Orbax's other tasks if one fails, whose error is raised anyway."""
    theirs = logging.getLogger("asyncio")
    before, theirs.disabled = theirs.disabled, True
    try:
        yield
    finally:
        theirs.disabled = before


def digest_of(state: PyTree, book: dict[str, Any]) -> str:
    """Return a SHA-256 of all arrays, by name, and of the bookkeeping."""
    found = hashlib.sha256(json.dumps(book, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        value = np.asarray(jax.device_get(leaf))
        found.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()
