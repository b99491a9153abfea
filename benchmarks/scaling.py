"""Cost and memory of the head search from a thousand to a million targets, on synthetic features.

Claim: seconds a target are flat, and temporary memory grows with the chunk, not with the number of targets (the records that
are returned do grow). `python -m benchmarks.scaling` prints the rows and writes benchmarks/results/scaling.json.
"""

import argparse
import time

from .record import write_result
from .timing import temporary_bytes, threads

FEATURES, FIT_POINTS, STEPS = 32, 512, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--chunks", type=int, nargs="+", default=[256, 1024, 4096])
    options = parser.parse_args()

    from quam_jax.process import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import numpy as np

    from quam_jax.config import SearchConfig
    from quam_jax.config.build import build_procedure
    from quam_jax.core.layout import heads
    from quam_jax.core.layout.choose import Layout
    from quam_jax.core.types import FitData, Targets
    from quam_jax.models.model import Network

    rng = np.random.default_rng(0)
    network = Network.create("att_unet", in_channels=1, n_classes=2, channels=FEATURES, is_batchnorm=False)
    head = {"Conv.weight": rng.normal(size=(1, 1, FEATURES, 2)) * 0.5}
    params = {n: jnp.asarray(head.get(n, np.zeros(s)), jnp.float32) for n, s in network.shapes()[0].items()}
    fit = FitData(
        jnp.asarray(rng.normal(size=(1, 1, 128, 128, FEATURES)), jnp.float32),
        jnp.asarray(rng.integers(0, 2, (1, 1, 128, 128))),
    )
    config = SearchConfig(space="head", members=1, steps=STEPS, fit_points=FIT_POINTS, learning_rate=1e-2)
    procedure = build_procedure(config, network)
    rows = []

    def run(count: int, chunk: int) -> float:
        side = int(np.ceil(np.sqrt(count)))
        features = jnp.asarray(rng.normal(size=(1, side, side, FEATURES)), jnp.float32)
        targets = Targets(jnp.arange(count)[:, None], jnp.asarray(rng.integers(0, 2, (count, 1, 1))), jnp.ones((count, 1)))
        start = time.perf_counter()
        heads.search_head_targets(
            network,
            params,
            features,
            fit,
            targets,
            shape=(side, side),
            procedure=procedure,
            steps=procedure.schedule.plan(1),
            key=jax.random.key(0),
            layout=Layout(chunk=chunk),
        )
        return time.perf_counter() - start

    memory = {
        chunk: temporary_bytes(heads, "_search_chunk", lambda chunk=chunk: run(chunk, chunk), static_argnums=(7, 8))
        for chunk in options.chunks
    }
    for count in options.targets:
        chunk = 1024
        run(min(count, 2048), chunk)
        seconds = sorted(run(count, chunk) for _ in range(3 if count <= 100_000 else 1))
        taken = seconds[len(seconds) // 2]
        rows.append(
            {
                "name": f"head-{count}",
                "targets": count,
                "chunk": min(chunk, count),
                "seconds": taken,
                "microseconds_a_target": 1e6 * taken / count,
            }
        )
    rows += [
        {"name": f"head-chunk-{chunk}", "chunk": chunk, "temporary_bytes": size, "bytes_a_target_of_the_chunk": size / chunk}
        for chunk, size in memory.items()
    ]
    write_result("scaling", rows, threads=threads(), setting={"features": FEATURES, "fit_points": FIT_POINTS, "steps": STEPS})


if __name__ == "__main__":
    main()
