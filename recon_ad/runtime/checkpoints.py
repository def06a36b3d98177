"""Checkpoints of a training run: asynchronous, atomic, the latest and the best.

A checkpoint at step s is the state after s steps with the run's bookkeeping (plain JSON). Orbax
writes into a temporary directory and renames it, so a killed run leaves no half checkpoint. Every
host calls all of this; it may be restored by any number of hosts and devices.
"""

import copy
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from recon_ad.runtime import mesh as meshes


class Checkpoints:
    """The checkpoints under one directory.

    Args:
      directory: made if absent.
    """

    def __init__(self, directory: Path):
        keep = policies.AnyPreservationPolicy(
            [
                policies.LatestN(2),
                policies.BestN(get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1),
            ]
        )
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                # BestN keeps the best; best_step() looks at these two.
                best_fn=lambda metrics: metrics["loss"],
                best_mode="min",
                # Else a directory that cannot be made leaves threads which wait for it, and a
                # training that failed goes on for minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )

    def save(self, step: int, state: PyTree, book: dict[str, Any], *, loss: float) -> None:
        """Starts writing; returns before it is on disk.

        `loss` (held-out) ranks checkpoints; infinite where it was not measured.
        """
        # Copied, as it is written while training goes on.
        kept = ocp.args.JsonSave(copy.deepcopy(book))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), book=kept)
        self._manager.save(step, args=items, metrics={"loss": loss})

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None; the same on every host."""
        return meshes.broadcast_from_first(self._manager.latest_step() or 0) or None

    def best(self) -> int | None:
        """Step of the checkpoint with the lowest held-out loss, or None; the same on every host."""
        self._manager.wait_until_finished()
        return meshes.broadcast_from_first(self._manager.best_step() or 0) or None

    def restore(self, step: int, like: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """State and bookkeeping of a step; `like` gives shapes, types and where arrays go."""
        self._manager.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), book=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["book"]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
