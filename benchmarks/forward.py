"""Every network against its PyTorch twin: a forward pass, and a forward and backward pass, on CPU in float32.

Claims: forward and backward together cost at most 1.5 times PyTorch's, or a reason is written beside the figure; a graph that
`from_torch` imported from the twin costs at most 1.2 times our own network. Both sides have the same weights, whose logits are
compared first, run in eval mode in one process with as many threads, and take turns, so that a drifting machine hits all of
them; PyTorch runs with the channels second and last and the faster one counts. Times are medians; everything is compiled
before anything is timed.
`python -m benchmarks.forward` (or `quam-jax benchmark forward`) prints the ratios and writes benchmarks/results/forward.json;
names restrict it, and then nothing is written.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .forward_networks import CASES, Case
from .record import write_result
from .timing import alternate, threads

LIMIT = 1.5
TOLERANCE = 1e-4
_CONVOLUTIONS = (
    "XLA's gradients of convolutions in their weight, and its convolutions of few channels, run at a part of the "
    "rate of PyTorch's (oneDNN): benchmarks/results/convolution.json"
)
# why forward and backward together may cost more than LIMIT times PyTorch's
REASONS = dict.fromkeys(
    (
        "att_unet",
        "unet",
        "unet_dropout",
        "unetpp",
        "unetppp",
        "segnet",
        "plain_unet",
        "wnet",
        "nnunet_plain",
        "nnunet_plain_3d",
        "nnunet_residual",
        "nnunet_residual_3d",
    ),
    _CONVOLUTIONS,
)
REASONS |= dict.fromkeys(
    ("swin_unet", "swin_unet_wrapper"),
    "a third of the time goes into transpositions between windows and "
    "attention heads, which XLA writes out and PyTorch reads in place",
)


def torch_sides(module: Any, images: Any, labels: Any) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """Forward passes, and forward and backward passes, for both orders of the axes."""
    import copy

    import torch

    last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    forward: dict[str, Callable[[], Any]] = {}
    both: dict[str, Callable[[], Any]] = {}
    for name, order in (("channels second", torch.contiguous_format), ("channels last", last)):
        net, x = copy.deepcopy(module).to(memory_format=order), images.contiguous(memory_format=order)

        def infer(net: Any = net, x: Any = x) -> None:
            with torch.inference_mode():
                net(x)

        def descend(net: Any = net, x: Any = x) -> None:
            for parameter in net.parameters():
                parameter.grad = None
            torch.nn.functional.cross_entropy(net(x), labels).backward()

        forward[name], both[name] = infer, descend
    return forward, both


def jax_sides(model: Any, x: Any, labels: Any) -> tuple[Callable[[], Any], Callable[[], Any], float]:
    """A forward pass, a forward and backward pass, and the seconds that compiling both took."""
    import jax

    from quam_jax.core.compilation import compiler_options
    from quam_jax.core.loss import cross_entropy

    network = model.network
    options = {"compiler_options": compiler_options()}
    forward = jax.jit(lambda params, stats, images: network.apply(params, stats, images)[0], **options)

    def loss(params: Any, stats: Any, images: Any, labels: Any) -> Any:
        return cross_entropy.mean(network.apply(params, stats, images)[0], labels)

    both = jax.jit(jax.value_and_grad(loss), **options)
    arguments = (model.params, model.stats, x)
    start = time.perf_counter()
    infer, descend = forward.lower(*arguments).compile(), both.lower(*arguments, labels).compile()
    seconds = time.perf_counter() - start
    return (lambda: jax.block_until_ready(infer(*arguments)), lambda: jax.block_until_ready(descend(*arguments, labels)), seconds)


class Ready(NamedTuple):
    """A network whose sides are compiled: `calls[kind][side]`, to be timed."""

    row: dict[str, Any]
    calls: dict[str, dict[str, Callable[[], Any]]]


def compile_sides(name: str, case: Case) -> Ready:
    """One network: check that twin and imported graph have our logits, and compile all sides."""
    import jax
    import numpy as np
    import torch

    from converters.exported import from_torch
    from converters.mapping import to_torch
    from quam_jax.models.model import Network, SegmentationModel

    rng = np.random.default_rng(0)
    images = rng.standard_normal(case.shape).astype(np.float32)
    labels = rng.integers(0, 2, (case.shape[0], *case.shape[2:]))
    network = Network.create(case.architecture, **case.arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0)))
    module = case.twin(**case.twin_arguments).eval()
    state = {k: torch.from_numpy(v) for k, v in to_torch(network, model.params, model.stats).items()}
    missing = module.load_state_dict(state, strict=False).missing_keys
    if any(not key.endswith("num_batches_tracked") for key in missing):
        raise ValueError(f"{name}: the twin has more weights: {missing}")
    imported = from_torch(module, torch.from_numpy(images), dynamic=case.dynamic)

    x = jax.numpy.asarray(np.moveaxis(images, 1, -1))
    with torch.inference_mode():
        wanted = np.moveaxis(module(torch.from_numpy(images)).numpy(), 1, -1)
    for side in (model, imported):
        difference = np.abs(np.asarray(side(x)) - wanted).max() / np.ptp(wanted)
        if not difference <= TOLERANCE:
            raise ValueError(f"{name}: logits of {side.network.architecture} differ from the twin's by {difference:.1e}")

    torch_forward, torch_both = torch_sides(module, torch.from_numpy(images), torch.from_numpy(labels))
    own_forward, own_both, compile_seconds = jax_sides(model, x, jax.numpy.asarray(labels))
    graph_forward, graph_both, _ = jax_sides(imported, x, jax.numpy.asarray(labels))
    row: dict[str, Any] = {
        "name": name,
        "images": list(case.shape),
        "weights": model.parameter_count,
        "compile_seconds": compile_seconds,
    }
    return Ready(
        row,
        {
            "forward": {**torch_forward, "own": own_forward, "imported": graph_forward},
            "both": {**torch_both, "own": own_both, "imported": graph_both},
        },
    )


def measure(ready: Ready, *, repeats: int) -> dict[str, Any]:
    """The sides of one network timed in turns."""
    row = dict(ready.row)
    for kind, sides in ready.calls.items():
        medians = alternate(sides, rounds=repeats)
        fastest = min((side for side in sides if side not in ("own", "imported")), key=lambda side: medians[side])
        row |= {
            f"{kind}_seconds": medians["own"],
            f"{kind}_torch_seconds": medians[fastest],
            f"{kind}_ratio": medians["own"] / medians[fastest],
            f"{kind}_torch_order": fastest,
            f"{kind}_imported_ratio": medians["imported"] / medians["own"],
        }
    if row["both_ratio"] > LIMIT:
        row["reason"] = REASONS.get(row["name"], "none written")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; default all")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in CASES]
    if unknown:
        parser.error(f"no network {', '.join(unknown)}; expected of {', '.join(CASES)}")
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()  # as the command line does; both sides gain
    import jax
    import torch

    jax.config.update("jax_platforms", "cpu")
    torch.set_num_threads(threads())
    networks = [compile_sides(name, CASES[name]) for name in options.names or CASES]
    sys.stdout.write(f"{len(networks)} networks compiled\n")
    sys.stdout.flush()
    rows = []
    for ready in networks:
        row = measure(ready, repeats=options.repeats)
        name = row["name"]
        rows.append(row)
        sys.stdout.write(
            f"{name}: forward {row['forward_ratio']:.2f} of PyTorch's, with backward {row['both_ratio']:.2f}; "
            f"imported graph {row['forward_imported_ratio']:.2f} and {row['both_imported_ratio']:.2f} of ours\n"
        )
        sys.stdout.flush()
    if not options.names:
        write_result("forward", rows, threads=threads(), repeats=options.repeats, precision="float32 on both sides", mode="eval")


if __name__ == "__main__":
    main()
