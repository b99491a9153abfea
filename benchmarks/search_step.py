"""One search step of the attention U-Net against the same step in PyTorch, in one process, at equal thread counts.

Claim: on CPU one step (16 channels, 96x96, fit batch 4 + 1 image, Adam, float32) costs at most 1.5 times PyTorch's. The bound
is one that no weights keep, so that the gradient of the fit loss is needed in every step, on both sides.
`python -m benchmarks.search_step` prints the ratio and writes benchmarks/results/search_step.json.
"""

import argparse
import statistics
import time

from .record import write_result
from .timing import seconds, threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--fit-batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    from quam_jax.process import keep_freed_memory

    keep_freed_memory()  # as the command line does; both sides gain
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from converters.mapping import to_torch
    from quam_jax.config import SearchConfig
    from quam_jax.core.searching import search_prepared
    from quam_jax.models.model import Network, SegmentationModel
    from quam_jax.models.predict import fit_data
    from quam_jax.models.prepare import prepare
    from quam_jax.targets.masks import mask_targets

    from .torch_att_unet import AttUNet

    torch.set_num_threads(threads())
    size, batch = options.size, options.fit_batch
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch + 1, size, size, 1)).astype(np.float32)
    labels = (rng.random((batch + 1, size, size)) < 0.3).astype(np.int32)
    arguments = dict(in_channels=1, n_classes=2, channels=options.channels, is_batchnorm=False, drop=0.0, decoder_drop=0.0)
    network = Network.create("att_unet", **arguments)
    model = SegmentationModel(network, *network.initialise(jax.random.key(0)))

    module = AttUNet(**arguments)
    state = {k: torch.from_numpy(np.array(v)) for k, v in to_torch(network, model.params, model.stats).items()}
    module.load_state_dict(state, strict=False)
    module.eval()
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    bound = 0.0
    steps = 6

    def torch_steps() -> None:
        for _ in range(steps):
            fit_loss = torch.nn.functional.cross_entropy(module(x[:batch]), y[:batch])
            objective = torch.nn.functional.cross_entropy(module(x[batch:]), y[batch:])
            optimizer.zero_grad()
            (objective + 10.0 * torch.relu(fit_loss - bound)).backward()
            optimizer.step()
        with torch.no_grad():
            torch.nn.functional.cross_entropy(module(x[:batch]), y[:batch])
            module(x[batch:])

    config = SearchConfig(members=1, steps=steps, learning_rate=1e-4, slack=-10.0, slack_unit="nats")
    fit = fit_data(model, jnp.asarray(images[None, :batch]), jnp.asarray(labels[None, :batch]))
    prepared = prepare(model, fit, config)
    targets = mask_targets([jnp.asarray(labels[batch])], members=1)

    def jax_steps() -> None:
        jax.block_until_ready(search_prepared(prepared, images[batch], targets, key=jax.random.key(0)))

    start = time.perf_counter()
    jax_steps()
    compile_seconds = time.perf_counter() - start
    ours, theirs = [], []
    for _ in range(3):  # alternate the sides, so that a drifting machine hits both
        theirs.append(seconds(torch_steps, options.repeats // 3))
        ours.append(seconds(jax_steps, options.repeats // 3))
    jax_seconds, torch_seconds = statistics.median(ours) / steps, statistics.median(theirs) / steps
    row = {
        "name": f"step-att_unet-{options.channels}-{size}",
        "seconds": jax_seconds,
        "torch_seconds": torch_seconds,
        "ratio": jax_seconds / torch_seconds,
        "compile_seconds": compile_seconds,
        "threads": threads(),
        "precision": "float32 on both sides",
        "fit_batch": batch,
    }
    write_result("search_step", [row])


if __name__ == "__main__":
    main()
