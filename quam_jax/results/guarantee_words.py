"""A guarantee in sentences, and as a picture."""

import math
from pathlib import Path

from ..guarantees.evidence import PROBABILITY, ZONE
from ..guarantees.guarantee import Guarantee, Limit


def describe_guarantee(guarantee: Guarantee) -> list[str]:
    """What it says of the next case, a line a statement."""
    alpha = f"{guarantee.alpha:.0%}"
    lines = [f"Of a new case like these {len(guarantee.cases)}, on average over cases (alpha {guarantee.alpha:g}):"]
    for key, limit in guarantee.limits.items():
        what, _, name = key.partition(":")
        if what == ZONE:
            said = f"at most {alpha} of the wrong pixels lie outside the review zone"
        elif what == "outer":
            said = f"at most {alpha} of {name} lie outside its outer mask"
        else:
            said = f"at most {alpha} of the predicted {name} are false inside its inner mask"
        lines.append(f"- {said}: {_where(limit)}")
    for name, (widening, cases) in guarantee.volumes.items():
        lines.append(
            f"- the volume of {name} lies in the range of its models, widened {math.exp(widening):.3g} times both ways, in "
            f"{1 - guarantee.alpha:.0%} of cases or more ({cases} cases)"
        )
    if guarantee.dice is not None:
        lines.append(
            f"- the Dice is at most {max(guarantee.dice.below, 0):.3f} below what is expected by {guarantee.dice.score} in "
            f"{1 - guarantee.alpha:.0%} of cases or more ({guarantee.dice.cases} cases)"
        )
    if guarantee.errors is not None and guarantee.errors.reliability:
        lines.append(
            f"The error map tells the rate of wrong pixels by {guarantee.errors.map}; on cases left out it is off by "
            f"{guarantee.errors.gap:.2%} of pixels on average."
        )
    zone = guarantee.limits.get(ZONE)
    if zone is not None and zone.compared:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in sorted(zone.compared.items(), key=lambda item: item[1]))
        lines.append(
            f"The review zone is by {zone.map}, chosen on {len(guarantee.chosen_on)} cases by what one looks at: {shares}."
        )
    return lines


def _where(limit: Limit) -> str:
    unit = "" if limit.map in (PROBABILITY, "boundary") else " nats"
    return f"{limit.map} from {limit.threshold:.3g}{unit}, {limit.share:.1%} of an image ({limit.cases} cases)"


def draw_guarantee(guarantee: Guarantee, path: Path) -> Path | None:
    """A picture of the reliability of the error map on cases left out, and of what one looks at by each map."""
    if guarantee.errors is None or not guarantee.errors.reliability:
        return None
    from matplotlib.figure import Figure

    figure = Figure((7.2, 3.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    predicted, observed, _ = zip(*guarantee.errors.reliability, strict=True)
    largest = max(*predicted, *observed) * 1.05
    left.plot([0, largest], [0, largest], color="0.7", linewidth=1)
    left.plot(predicted, observed, marker="o", color="#1f5fa8")
    left.set(
        xlabel="predicted rate of wrong pixels", ylabel="rate on cases left out", title=f"error map ({guarantee.errors.map})"
    )
    zone = guarantee.limits.get(ZONE)
    compared = {} if zone is None else zone.compared or {zone.map: zone.share}
    names = sorted(compared, key=lambda name: -compared[name])
    colours = ["#1f5fa8" if zone is not None and name == zone.map else "0.7" for name in names]
    right.barh(names, [100 * compared[name] for name in names], color=colours)
    right.set(xlabel=f"% of an image for {guarantee.alpha:.0%} of errors missed", title="review zone by map")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return path
