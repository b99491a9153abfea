"""Several devices, simulated: members and heads are dealt out, the numbers stay, and the devices never speak to each other.

And the host: a case puts its image on the device at the beginning and takes its records at the end.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from quam_jax.config import SearchConfig
from quam_jax.core.layout import chunk, heads
from quam_jax.core.layout.choose import Layout
from quam_jax.core.searching import search_images
from quam_jax.core.types import Targets
from quam_jax.models.prepare import prepare
from quam_jax.targets.pixels import all_pixels, pixel_targets
from tests.member_searches import EVAL, assert_equal
from tests.tiny import tiny_fit, tiny_image, tiny_model, tiny_network, tiny_targets

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
HEADS = SearchConfig(space="head", members=3, steps=4, learning_rate=0.1, fit_points=64, slack=0.05)


def found(config: SearchConfig, targets: Targets, layout: Layout, *, images: int = 1) -> Any:
    model = tiny_model()
    prepared = prepare(model, tiny_fit(model), config)
    some = [tiny_image(seed=seed) for seed in range(1, images + 1)]
    keys = [jax.random.key(seed) for seed in range(images)]
    trajectories = search_images(prepared, some, [targets] * images, keys=keys, layout=layout)
    return [jax.tree.map(np.asarray, trajectory) for trajectory in trajectories]


def pixels() -> Targets:
    probs = np.random.default_rng(0).dirichlet(np.ones(2), (8, 12)).astype(np.float32)
    return pixel_targets(all_pixels((8, 12)), probs, members=1)


def told() -> dict[str, Any]:
    """In a process of eight devices: how far the numbers are from those of one, and the collectives of the programs."""
    facts: dict[str, Any] = {"devices": jax.local_device_count()}
    with pytest.MonkeyPatch.context() as patch, tiny_network():
        members = tiny_targets(members=8)
        (one,) = found(EVAL, members, Layout("vmap", "scan", 8, devices=1))
        facts["moved"] = float(np.abs(one.probs[:, :, 0] - one.probs[:, :, -1]).max())
        counted(patch, chunk, "run_steps", chunk.run_steps, facts)
        assert_equal(found(EVAL, members, Layout("vmap", "scan", 8))[0], one)
        asked = pixels()
        (one,) = found(HEADS, asked, Layout(devices=1))
        search = heads._search_shared_out(8)
        counted(patch, heads, "_search_shared_out", search, facts, made=True)
        assert_equal(found(HEADS, asked, Layout(chunk=37))[0], one, rtol=1e-4)  # of 96 heads: 40 at a time
    return facts


def counted(patch: Any, module: Any, name: str, function: Any, facts: dict[str, Any], *, made: bool = False) -> None:
    """Have the collectives of a function's compiled program counted; with `made` the module has a function that gives it."""

    def call(*arguments: Any) -> Any:
        text = function.lower(*arguments).compile().as_text()
        facts[name] = {kind: text.count(f" {kind}") for kind in COLLECTIVES} | {"parts": text.count("num_partitions=8")}
        return function(*arguments)

    call.__dict__.update(function.__dict__)
    patch.setattr(module, name, (lambda devices: call) if made else call)


def test_eight_devices_give_the_numbers_of_one_and_never_speak() -> None:
    root = Path(__file__).parent.parent
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": flags}
    code = "import json; from tests.test_devices import told; print(json.dumps(told()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["devices"] == 8 and facts["moved"] > 1e-2
    quiet = dict.fromkeys(COLLECTIVES, 0)
    for program in ("run_steps", "_search_shared_out"):
        assert facts[program].pop("parts") >= 1, program
        assert facts[program] == quiet, program


# the host


@pytest.mark.usefixtures("tiny")
def test_transfers_of_a_case_do_not_grow_with_its_steps_and_members(capfd: pytest.CaptureFixture[str]) -> None:
    """Where steps are scanned, what they need is put on the device at once, and nothing comes back before the end."""
    counts = []
    for steps, members in ((2, 2), (5, 2), (5, 4)):
        config = dataclasses.replace(EVAL, steps=steps, members=members)
        model = tiny_model()
        prepared = prepare(model, tiny_fit(model), config)
        image, targets, key = tiny_image(), tiny_targets(members=members), jax.random.key(0)

        def case(prepared: Any = prepared, image: Any = image, targets: Any = targets, key: Any = key) -> Any:
            return search_images(prepared, [image], [targets], keys=[key], layout=Layout("vmap", "scan"))

        case()
        capfd.readouterr()
        with jax.transfer_guard_host_to_device("log_explicit"), jax.transfer_guard_device_to_host("disallow_explicit"):
            jax.block_until_ready(case())
        counts.append(capfd.readouterr().err.count("host-to-device transfer"))
    assert counts[0] == counts[1] == counts[2] > 0


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("layout", [Layout("vmap", "scan"), Layout("loop", "loop", 1)])
def test_weights_and_moments_are_given_to_the_step_to_overwrite(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "run_steps" if layout.steps == "scan" else "step_group"
    original, given = getattr(chunk, name), []

    def watched(*arguments: Any) -> Any:
        given.append(arguments[3])
        return original(*arguments)

    watched.__dict__.update(original.__dict__)
    monkeypatch.setattr(chunk, name, watched)
    found(EVAL, tiny_targets(members=3), layout)
    states = [leaf for leaf in jax.tree.leaves(given[0]) if leaf.ndim > 1]
    assert states and all(leaf.is_deleted() for leaf in states)
