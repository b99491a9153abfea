"""Ways to run a search on this device beside each other, and the one that is chosen by measurement beside the rule's.

Claim (CPU): the choice is the rule's way or one that is at least as fast in the same rounds, in every row; ways with mapped or
unrolled members, which are not timed on a CPU, are no faster than the rule's.
`python -m benchmarks.plan_choice` prints the ratios and writes benchmarks/results/plan_choice.json.
"""

import argparse
from typing import Any

from .accelerator_problems import STEPS, Size, att_unet, nnunet, problem
from .record import write_result
from .timing import alternate, threads

OTHERS = (("unroll", "loop"), ("vmap", "loop"))
SLOW = 2**13  # pixels from which on mapped members take minutes
SIZES: dict[str, Size] = {
    "AttUNet-4, 32 x 32": att_unet(4, 32, images=1),
    "nnU-Net 3-D, 4 and 8 channels, 16 x 16 x 16": nnunet((4, 8), 16),
    "AttUNet-16, 96 x 96": att_unet(16, 96, images=1),
}


def measure(name: str, size: Size, *, rounds: int) -> dict[str, Any]:
    """Seconds of a search by every way, in turn, and what was chosen before."""
    import jax

    from quam_jax.core.layout.choose import Layout
    from quam_jax.core.layout.measuring import Candidate, like_searches
    from quam_jax.core.layout.members import plans_made
    from quam_jax.core.searching import search_prepared

    given = problem(size, ("float32",))
    image, targets, key = given.images[0], given.targets, jax.random.key(0)

    def search(layout: Layout) -> None:
        jax.block_until_ready(search_prepared(given.prepared["float32"], image, targets, key=key, layout=layout))

    with like_searches(10**6):
        search(Layout())
    choice = plans_made()[-1].choice
    assert choice is not None
    ours = [Layout("loop", "loop", chunk) for chunk in (2, 1)]
    known = {Candidate(layout).name: layout for layout in ours}
    small = image.size < SLOW
    ways = known | ({f"members {m}, steps {s}": Layout(m, s) for m, s in OTHERS} if small else {})  # type: ignore[arg-type]
    times = alternate({way: lambda layout=layout: search(layout) for way, layout in ways.items()}, rounds=rounds)
    by_rule = next(iter(choice.seconds), choice.candidate.name)
    return {
        "name": name,
        "rule": by_rule,
        "chosen": choice.candidate.name,
        "how": choice.how,
        "ratio": times[by_rule] / times[choice.candidate.name],
        "seconds": times[choice.candidate.name],
        "others": {way: seconds / times[by_rule] for way, seconds in times.items() if way not in known},
        "seconds_by_way": times,
        "seconds_a_step": choice.seconds,
        "steps": STEPS,
        "threads": threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from quam_jax.process import keep_freed_memory

    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for name, size in SIZES.items():
        rows.append(measure(name, size, rounds=options.rounds))
        write_result("plan_choice", rows, shown=1, setting=vars(options))


if __name__ == "__main__":
    main()
