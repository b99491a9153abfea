"""The state that an interrupted training goes on from: one file, whole or not at all, exact to the bit.

It is a plain .npz and no Orbax checkpoint: the 499 small arrays of the demonstration's network and its optimiser took Orbax's
manager 1.2 to 2.0 seconds to write, and this 0.14 (two cores). It is written often, and read by nobody else.
"""

import dataclasses
import hashlib
import json
import os
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..models.model import Network, Parameters
from .examples import Example
from .losses import Loss, segmentation_loss
from .settings import TrainConfig


class State(NamedTuple):
    """What a step changes."""

    params: Parameters
    stats: Parameters
    optimizer: optax.OptState


def begin(network: Network, seed: int) -> State:
    """Fresh weights and an optimiser that has seen nothing."""
    # this generator compiles five times faster than the default one, and initialisation compiles one function a shape
    params, stats = network.initialise(jax.random.key(seed, impl="rbg"))
    return State(params, stats, optax.scale_by_adam().init(params))


def write_state(path: Path, state: State, *, step: int, history: Sequence[tuple[int, float]], identity: str) -> None:
    """Write a training state as one .npz file, complete or not at all."""
    arrays: dict[str, Any] = {f"{index}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(state))}
    arrays["about"] = np.array(json.dumps({"step": step, "history": history, "identity": identity}))
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with staging.open("xb") as stream:
            np.savez(stream, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def read_state(path: Path, *, like: State, identity: str) -> tuple[State, int, list[tuple[int, float]]]:
    """State, steps done and validation history; ValueError if the file is damaged or belongs to another run."""
    leaves, tree = jax.tree.flatten(like)
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            same = about["identity"] == identity
            values = [jnp.asarray(stored[f"{index}"]) for index in range(len(leaves))] if same else []
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected a training state, got {type(error).__name__}: {error}; delete it to begin anew"
        ) from error
    if not same:
        raise ValueError(
            f"{path}: expected the state of this run, got that of another network, other settings or other "
            "cases; delete it or name another file"
        )
    return jax.tree.unflatten(tree, values), about["step"], [(int(s), float(d)) for s, d in about["history"]]


def run_identity(network: Network, config: TrainConfig, groups: Sequence[Sequence[Example]], loss: Loss) -> str:
    """A hash of what decides the weights: architecture, settings and cases."""
    settings = {**dataclasses.asdict(config), "checkpoint_every": None}
    digest = hashlib.sha256(repr((network, sorted(settings.items()))).encode())
    if loss is not segmentation_loss:
        digest.update(loss.__name__.encode())
    for group in groups:
        digest.update(f"{len(group)} cases".encode())
        for array in (array for example in group for array in example):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
