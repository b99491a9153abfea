"""Seconds to evaluate cases of 224x224 with eight raters, sixteen samples and four maps, surface figures included.

Claim: 100 cases in under 30 s on 2 cores. `python -m benchmarks.evaluate_speed` writes benchmarks/results/evaluate_speed.json.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from .record import write_result

SIDE, RATERS, SAMPLES = 224, 8, 16


def make_case(seed: int) -> tuple:
    """Maps, raters, probabilities, segmentation and samples of a wobbly disc."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIDE, SIDE))
    angle = np.arctan2(rows - SIDE / 2, columns - SIDE / 2)
    distance = np.hypot(rows - SIDE / 2, columns - SIDE / 2)

    def outline() -> np.ndarray:
        wave = sum(rng.normal(0, 2) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 6))
        return 50 + rng.normal(0, 2) + wave - distance

    raters = np.stack([outline() > 0 for _ in range(RATERS)]).astype(np.uint8)
    samples = np.stack([outline() > 0 for _ in range(SAMPLES)]).astype(np.uint8)
    foreground = 1 / (1 + np.exp(-(outline() + rng.normal(0, 1, (SIDE, SIDE)))))
    probabilities = np.stack([1 - foreground, foreground], -1)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(-1)
    maps = {name: entropy + rng.random((SIDE, SIDE)) * 0.01 for name in ("total", "aleatoric", "epistemic", "boundary")}
    return maps, raters, probabilities, (foreground > 0.5).astype(np.int32), samples


def seconds(seed: int) -> float:
    """Processor seconds of one case."""
    from quam_jax.evaluation import evaluate

    maps, raters, probabilities, segmentation, samples = make_case(seed)
    started = time.process_time()
    evaluate(maps, raters, probabilities=probabilities, segmentation=segmentation, samples=samples)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    started = time.perf_counter()
    with ProcessPoolExecutor(options.workers) as pool:
        times = list(pool.map(seconds, range(options.cases), chunksize=5))
    wall = time.perf_counter() - started
    write_result(
        "evaluate_speed",
        [
            {
                "cases": options.cases,
                "workers": options.workers,
                "wall_seconds": wall,
                "processor_seconds": sum(times),
                "median_a_case": float(np.median(times)),
                "maps": 4,
                "raters": RATERS,
                "samples": SAMPLES,
                "side": SIDE,
            }
        ],
    )


if __name__ == "__main__":
    main()
