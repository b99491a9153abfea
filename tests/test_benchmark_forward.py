"""The PyTorch twins of the speed comparison: the same names, logits and gradients as our networks, in their smallest sizes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.mapping import to_torch
from quam_jax.core.loss import cross_entropy
from quam_jax.models.model import Network, SegmentationModel
from quam_jax.networks import NETWORKS
from tests.command_line import call

torch = pytest.importorskip("torch")

from benchmarks.forward_networks import CASES  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
STAGES = {"features_per_stage": (2, 3, 4), "kernel_sizes": None, "strides": None}
# what is made smaller, and the sides of the image
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "att_unet": ({"channels": 3}, (16, 24)),
    "unet": ({"channels": 3}, (16, 32)),
    "unet_dropout": ({"channels": 3}, (32, 16)),
    "unetpp": ({"channels": 2}, (16, 32)),
    "unetppp": ({"channels": 2}, (24, 16)),
    "segnet": ({"widths": (2, 3, 4, 5)}, (33, 38)),
    "plain_unet": ({"channels": 2}, (8, 12)),
    "wnet": ({"widths": (2, 3, 4)}, (8, 12)),
    **dict.fromkeys(
        ("swin_unet", "swin_unet_wrapper"),
        ({"img_size": 64, "embed_dim": 4, "num_heads": (1, 2, 2, 4), "window_size": 4, "depths": (2, 1, 1, 1)}, (64, 64)),
    ),
    **dict.fromkeys(("nnunet_plain", "nnunet_residual"), (STAGES, (8, 12))),
    **dict.fromkeys(("nnunet_plain_3d", "nnunet_residual_3d"), (STAGES, (4, 8, 8))),
}


def smaller(name: str) -> tuple[SegmentationModel, Any, np.ndarray]:
    """Our network with random weights, its twin with the same, and two images."""
    case, (changes, space) = CASES[name], SMALL[name]
    if changes is STAGES:  # what is said for every stage is cut to as many as are left
        changes = {**changes, **{k: case.arguments[k][:3] for k in ("kernel_sizes", "strides")}}
        counts = {k: v[: 3 - ("decoder" in k)] for k, v in case.arguments.items() if k.startswith("n_") and isinstance(v, tuple)}
        twins = {k: case.twin_arguments[k][: 3 - ("decoder" in k)] for k in ("counts", "decoder_counts")}
    else:
        counts = twins = {}
    network = Network.create(case.architecture, **{**case.arguments, **changes, **counts})
    rng = np.random.default_rng(0)
    params, stats = network.shapes()
    params = {
        n: jnp.asarray(rng.standard_normal(s) * (0.4 if len(s) > 1 else 0.2) + (len(s) == 1), jnp.float32)
        for n, s in params.items()
    }
    stats = {n: jnp.asarray(rng.uniform(0.5, 1.5, s), jnp.float32) for n, s in stats.items()}
    model = SegmentationModel(network, params, stats)
    twin = case.twin(**{**case.twin_arguments, **changes, **twins}).eval()
    state = {n: torch.from_numpy(v) for n, v in to_torch(network, params, stats).items()}
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected and all(n.endswith("num_batches_tracked") for n in missing), (missing, unexpected)
    return model, twin, rng.standard_normal((2, case.shape[1], *space)).astype(np.float32)


def test_every_network_has_a_twin() -> None:
    assert {case.architecture for case in CASES.values()} == set(NETWORKS) - {"graph", "prob_unet"}
    assert SMALL.keys() == CASES.keys()


QUICK = ("att_unet", "unet", "nnunet_residual_3d")  # all of them take minutes to compile


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES])
def test_twin_has_our_logits_and_gradients(name: str) -> None:
    model, twin, images = smaller(name)
    labels = np.random.default_rng(1).integers(0, 2, (2, *images.shape[2:]))
    twin.double()
    theirs = twin(torch.from_numpy(images).double())
    torch.nn.functional.cross_entropy(theirs, torch.from_numpy(labels)).backward()
    wanted = {n: p.grad.numpy() for n, p in twin.named_parameters() if p.grad is not None}

    def loss(params: Any) -> Any:
        logits = model.network.apply(params, model.stats, jnp.asarray(np.moveaxis(images, 1, -1)))[0]
        return cross_entropy.mean(logits, labels), logits

    gradient, ours = jax.jit(jax.grad(loss, has_aux=True))(model.params)
    logits = np.moveaxis(theirs.detach().numpy(), 1, -1)
    np.testing.assert_allclose(ours, logits, rtol=0, atol=2e-5 * np.ptp(logits))
    found = to_torch(model.network, gradient, model.stats)
    norm = np.sqrt(sum(float((g**2).sum()) for g in wanted.values()))
    error = np.sqrt(sum(float(((found[n] - g) ** 2).sum()) for n, g in wanted.items()))
    assert norm > 0 and error <= 1e-4 * norm


def test_command(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    code, out, _ = call(monkeypatch, capsys, "benchmark", "--help")
    assert code == 0 and "forward" in out and "Example: quam-jax benchmark forward" in out
    done = subprocess.run(
        [sys.executable, "-c", "from quam_jax.cli import main; main()", "benchmark", "forward", "nothing"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no network nothing; expected of att_unet" in done.stderr
    from quam_jax.cli import benchmark

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "site" / "quam_jax" / "cli" / "benchmark.py"))
    code, _, error = call(monkeypatch, capsys, "benchmark", "forward")
    assert code == 2 and "expected a source checkout" in error and error.count("\n") == 1
