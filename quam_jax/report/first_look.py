"""What the first screen says: which cases deserve a look, in which order, and of each its size, its kind and what is off.

The order is that of `quam-jax rank`: rank shares of the criteria of `evaluation/review.py`, by default of the total uncertainty
and of what the adversarial models label otherwise. It ranks cases of one run; it is no probability of an error.

Which cases deserve a look is a guarantee's to say where the run has one with a least Dice, and then there may be none or all.
Without one nobody knows how good a segmentation is, and the first fifth of the order is where to start: those of them in which an
adversarial model labels part of an uncertain region otherwise. Wherever the models and the prediction have less in common than
apart, the case is named too, so that a fifth does not hide a run in which most cases are in doubt.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..evaluation.regions import Region, enlarged, find_regions
from ..evaluation.review import CASE_CRITERIA, case_criteria, order_by
from . import case_numbers, case_pictures, figures, tables
from .folder import Case, Run, number, other_settings
from .guarantee import least_dice, told_of
from .layers import Layers, Scales, read_layers
from .sizes import Size, measured_sizes, place_in_words

ORDER = ("total", "changed")  # the criteria of `quam-jax rank` without --by
TOP = 0.2  # share of the cases that is named
APART = 0.5  # mean Dice of the adversarial models with the prediction, below which a case is named whatever its place
REGION_SHARE = 0.25  # of the epistemic scale: from there on pixels make a region
UNEXPLAINED = "does not explain its own fit data"
MOST_NAMES = 4  # of cases in the sentence
BADGES = {  # what is off, the worst first, and what it means
    "failed": "The case could not be computed.",
    "fit check": "The network does not explain its own fit data: its maps answer no question about this case.",
    "no model": "No adversarial model kept the bound: the maps are those of the given network alone.",
    "nothing moved": "No model that kept the bound came nearer to its target: the search says nothing about this case.",
    "low Dice": "A guarantee does not rule out that its Dice is below the least one that was asked for.",
    "other settings": "Computed with another configuration than the rest of the run.",
    "leak": "The image is also one of the fit cases, so that adversarial models had to explain it.",
    "empty": "Nothing is segmented, so that a mask has no boundary to move.",
    "bound missed": "Some adversarial models explain the known data worse than allowed.",
    "not computed": "The case has not been computed yet.",
    "incomplete": "Parts of the result are missing or damaged; the page of the case says which.",
}
SAY_NOTHING = ("failed", "fit check", "no model", "nothing moved")


class Look(NamedTuple):
    """One case on the first screen, the `number`-th of its run from 0.

    `rank` counts from 1 and is None without maps; `share` is the epistemic one of the total. `contested` says whether a region
    has a pixel that an adversarial model labels otherwise (true where none is stored), `shared` is the mean Dice of these models
    with the prediction, NaN where there is none or each label flipped by itself.
    """

    number: int
    name: str
    rank: int | None
    suggested: bool
    score: float
    criteria: Mapping[str, float]
    sizes: tuple[Size, ...]
    share: float | None
    worst: Region | None
    place: str
    regions: int
    badges: tuple[str, ...]
    thumb: str | None
    contested: bool = False
    shared: float = math.nan

    @property
    def kind(self) -> str:
        """What most of the uncertainty is, or nothing where that is not known."""
        if self.share is None:
            return ""
        return "epistemic" if self.share > 0.5 else "aleatoric"

    @property
    def size(self) -> Size | None:
        """Of the structure whose range is widest in proportion."""
        return max(self.sizes, key=lambda size: size.spread, default=None)


class FirstLook(NamedTuple):
    """The cases in review order, what the order is by, the sentence about them, and what makes a case deserve a look."""

    looks: tuple[Look, ...]
    by: tuple[str, ...]
    sentence: str
    more: tuple[str, ...]
    rule: str


def look_at(run: Run, scales: Scales, *, by: Sequence[str] = ORDER, top: float = TOP) -> FirstLook:
    """Put the cases of a run in review order, those without maps last."""
    strangers = other_settings(run.info, run.cases)
    found = [_look(run, index, case, scales, stranger=case.name in strangers) for index, case in enumerate(run.cases)]
    ranked = [look for look in found if not math.isnan(look.criteria.get("epistemic", math.nan))]
    rest = [look for look in found if look not in ranked]
    by = tuple(name for name in by if any(not math.isnan(look.criteria[name]) for look in ranked)) if ranked else ()
    if ranked and not by:
        by = ("epistemic",)
    if ranked:
        order, scores = order_by([look.criteria for look in ranked], by)
        first = math.ceil(top * len(ranked))
        ranked = [
            ranked[i]._replace(rank=rank, score=float(scores[i]), suggested=_stands_out(ranked[i], early=rank <= first))
            for rank, i in enumerate(order.tolist(), start=1)
        ]
    looks = (*ranked, *rest)
    least = least_dice(run) if any("look" in told_of(case) for case in run.cases) else math.nan
    if not math.isnan(least):
        looks = tuple(look._replace(suggested="low Dice" in look.badges) for look in looks)
    return FirstLook(
        looks, by, *_words(looks, least=least, unexplained=bool(unexplained(run.info))), _rule(looks, least, top=top)
    )


def unexplained(info: Mapping[str, Any]) -> list[str]:
    """What looks as if the network did not see what it was trained on."""
    fit = info.get("fit")
    findings = fit.get("findings") if isinstance(fit, Mapping) else None
    if not isinstance(findings, list) or not findings:
        return []
    return [f"The network {UNEXPLAINED}: {'; '.join(case_numbers.plain(text) for text in findings)}."]


def badges_of(run: Run, case: Case, *, stranger: bool = False) -> tuple[str, ...]:
    """What is off with a case, as keys of BADGES, the worst first."""
    if case.failed is not None:
        return ("failed",)
    if not case.row and not case.record:
        return ("not computed",)
    stored = case.record.get("audit")
    audit = [entry for entry in stored if isinstance(entry, Mapping)] if isinstance(stored, list) else []
    held, members = number(case.row.get("held")), number(case.row.get("members"))
    asked = any(entry.get("searched", 1) != 1 for entry in audit)  # of many targets some always fail, and the map says which
    notes = " ".join(case_numbers.case_notes(case))
    off = {
        "fit check": bool(unexplained(run.info)),
        "no model": members > 0 and held == 0,
        "nothing moved": held > 0 and bool(audit) and not any(e.get("held") and case_numbers.moved(e) for e in audit),
        "low Dice": told_of(case).get("look") is True,
        "other settings": stranger,
        "leak": "also one of the fit cases" in notes,
        "empty": "segmentation is empty" in notes,
        "bound missed": 0 < held < members and not asked,
        "incomplete": bool(case.missing),
    }
    return tuple(key for key in BADGES if off.get(key))


def short_rows(seen: FirstLook) -> list[dict[str, Any]]:
    """A row a case in review order, in the columns that docs/files.md names; empty where something is not known."""
    rows = []
    for look in seen.looks:
        size, worst = look.size, look.worst
        rows.append(
            {
                "rank": look.rank or "",
                "case": look.name,
                "look": "yes" if look.suggested else "no",
                "score": "" if math.isnan(look.score) else round(look.score, 6),
                "structure": size.name if size else "",
                "size": size.value if size else "",
                "size_low": size.low if size else "",
                "size_high": size.high if size else "",
                "unit": size.unit if size else "",
                "kind": look.kind,
                "epistemic_share": "" if look.share is None else round(look.share, 6),
                "regions": look.regions,
                "worst_at": ",".join(map(str, worst.peak)) if worst else "",
                "worst_pixels": worst.pixels if worst else "",
                "flags": ";".join(look.badges),
            }
        )
    return rows


def five_figures(case: Case, look: Look) -> list[tuple[str, str, str]]:
    """(what, figure, detail) of the five figures of a case; those that are not known are left out."""
    found = []
    size = look.size
    if size is not None:
        more = f"; {len(look.sizes) - 1} more below" if len(look.sizes) > 1 else ""
        ends = f"{size.range_text} under the adversarial models" if size.range_text else "no other size was found"
        found.append((size.name, size.text, ends + more))
    if look.share is not None:
        detail = f"epistemic {100 * look.share:.0f} %, aleatoric {100 - 100 * look.share:.0f} %"
        found.append(("Kind of uncertainty", f"mostly {look.kind}", detail))
    if look.rank is not None:
        place = f"the largest {look.place}" if look.place else "nothing reaches the threshold"
        found.append(("Regions to look at", str(look.regions), place))
    dice = tables.dice_column(case.row)
    if dice and math.isfinite(number(case.row[dice])):
        found.append(("Dice", tables.show(case.row[dice]), "of the prediction with the raters"))
    held = tables.held_of(case.row)
    if held != tables.NONE:
        found.append(("Models within the bound", held.replace("/", " of "), "explain the known data well enough"))
    return found


def _look(run: Run, index: int, case: Case, scales: Scales, *, stranger: bool) -> Look:
    badges = badges_of(run, case, stranger=stranger)
    criteria = dict.fromkeys(CASE_CRITERIA, math.nan)
    bare = Look(index, case.name, None, False, math.nan, criteria, (), None, None, "", 0, badges, None)
    layers = read_layers(case, raters=False) if case.failed is None else None
    if layers is not None and layers.problems and "incomplete" not in badges:
        badges = (*badges, "incomplete")
    if layers is None or not layers.space:
        return bare._replace(badges=badges)
    arrays, threshold = layers.arrays, REGION_SHARE * scales.epistemic.high
    voxel = float(np.prod(layers.spacing)) if layers.unit == "mm" else float(layers.factor**2)
    searched = "epistemic" in arrays and threshold > 0
    regions = find_regions(arrays, threshold=threshold, limit=1) if searched else None
    worst = enlarged(regions.listed[0], layers.factor) if regions is not None and regions.listed else None
    criteria = case_criteria(arrays, voxel=voxel)
    return bare._replace(
        criteria=criteria,
        sizes=measured_sizes(case, layers),
        share=case_numbers.epistemic_share(layers),
        worst=worst,
        place=place_in_words(worst, layers) if worst is not None else "",
        regions=regions.number if regions is not None else 0,
        badges=badges,
        thumb=_thumbnail(case, layers, scales),
        contested=searched and _contested(layers, threshold),
        shared=math.nan if layers.flipped_one_by_one else 1 - criteria["relative"],
    )


def _contested(layers: Layers, threshold: float) -> bool:
    """Whether an adversarial model labels part of a region otherwise."""
    arrays = layers.arrays
    uncertain = arrays["epistemic"] >= threshold
    if "segmentation" in arrays and len(arrays.get("adversarial", ())):
        labels = arrays["segmentation"][uncertain]
        return any(bool((model[uncertain] != labels).any()) for model in arrays["adversarial"])
    return bool(uncertain.any())


def _stands_out(look: Look, *, early: bool) -> bool:
    """Whether a case deserves a look without a guarantee; `early` is one of the first of the order."""
    return not set(look.badges) & set(SAY_NOTHING) and ((early and look.contested) or look.shared < APART)


def _thumbnail(case: Case, layers: Layers, scales: Scales) -> str:
    colour = "image" in layers.arrays and layers.arrays["image"].ndim > len(layers.space)
    limits = figures.display_range(layers.arrays["image"], colour=colour) if "image" in layers.arrays else (0.0, 1.0)
    plane = case_pictures.choose_planes(case, layers, scales)[0]
    return case_pictures.draw_thumbnail(plane, layers, scales, limits=limits)


def _rule(looks: Sequence[Look], least: float, *, top: float) -> str:
    """What makes a case deserve a look, and how far the segmentations of the run are contested."""
    if not math.isnan(least):
        return f"A case deserves a look where the guarantee does not rule out a Dice below {least:g}."
    share = "fifth" if top == TOP else f"{100 * top:g} %"
    rule = (
        f"A case deserves a look if it is in the first {share} of the order and an adversarial model labels part of an uncertain "
        f"region otherwise, or, wherever it stands, if the mean Dice of these models with the prediction is below {APART:g}."
    )
    shared = [look.shared for look in looks if not math.isnan(look.shared)]
    if len(shared) > 1:
        rule += f" That Dice is {float(np.median(shared)):.2f} in the median case, {min(shared):.2f} in the lowest."
    return rule


def _words(looks: Sequence[Look], *, least: float, unexplained: bool) -> tuple[str, tuple[str, ...]]:
    """The sentence, and the sentences behind it."""
    named = [look for look in looks if look.suggested]
    done = sum("not computed" not in look.badges for look in looks)
    more = []
    if unexplained:
        first = f"The network {UNEXPLAINED}, so these maps decide nothing."
    elif not looks:
        first = "The run has no cases yet."
    elif len(looks) == 1 and named and named[0].regions:
        count = named[0].regions
        deserve = "region deserves" if count == 1 else "regions deserve"
        first = f"{looks[0].name}: {count} {deserve} a look, the first {named[0].place}."
    elif named:
        first = f"{len(named)} of {len(looks)} cases deserve{'s' if len(named) == 1 else ''} a look: {_names(named)}."
    elif done:
        first = "No case stands out." if math.isnan(least) else "No case deserves a look."
    else:
        first = "No case has been computed yet."
    if done and not math.isnan(least):
        told = "their Dice may be below" if named else "every Dice that it speaks of is at least"
        more.append(f"By the guarantee {told} {least:g}.")
    for badge in ("failed", "no model", "nothing moved", "leak", "not computed"):
        having = [look for look in looks if badge in look.badges]
        if having:
            more.append(f"{badge.capitalize()}: {_names(having)}.")
    return first, tuple(more)


def _names(looks: Sequence[Look]) -> str:
    names = [look.name for look in looks[:MOST_NAMES]]
    if len(looks) > MOST_NAMES:
        return f"{', '.join(names)} and {len(looks) - MOST_NAMES} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
