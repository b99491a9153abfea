"""What validation chose for the search, and how far one setting for all networks stays behind."""

from collections.abc import Mapping, Sequence
from typing import Any

from .evidence_names import default_settings, settings_text
from .record import markdown_table


def chosen(result: Mapping[str, Any]) -> str:
    """What validation chose for the search, network by network, and what the default had there."""
    lines = []
    for name, rows in result["tuning"].items():
        network, _, method = name.rpartition(" ")
        if method == "quam_tuned":
            best = max((r for r in rows if r["score"] is not None), key=lambda r: r["score"], default=None)
            if best:
                default = next((r for r in rows if r["settings"] == default_settings() and r["score"] is not None), None)
                scores = [f"{row['score']:.3f} ± {row['standard_error']:.3f}" if row else "–" for row in (best, default)]
                lines.append([network, settings_text(best["settings"]), *scores, str(best["cases"])])
    return "Chosen for the tuned search on validation cases (total PCC ± standard error over cases):\n\n" + markdown_table(
        ["network", "chosen", "its score", "the default's", "cases"], lines
    )


def choice(studies: Sequence[Mapping[str, Any]]) -> str:
    """How far every setting of the search's grid stays behind each network's best one on its validation cases."""
    scores: dict[str, dict[str, float]] = {}
    for name, rows in (pair for result in studies for pair in result["tuning"].items()):
        if name.endswith(" quam_tuned"):
            scores[name] = {settings_text(row["settings"]): row["score"] for row in rows if row["score"] is not None}
    networks = [table for table in scores.values() if table]
    shared = [text for text in networks[0] if all(text in table for table in networks)] if networks else []
    lines = []
    for text in shared:
        behind = [max(table.values()) - table[text] for table in networks]
        title = f"{text} (the default)" if text == settings_text(default_settings()) else text
        lines.append([title, f"{sum(behind) / len(behind):.3f}", f"{max(behind):.3f}", str(sum(b == 0 for b in behind))])
    text = (
        f"Total PCC on validation cases, over the {len(networks)} networks of the studies: how far one setting for all stays "
        "behind the best setting of each network.\n\n"
    )
    return text + markdown_table(["setting", "mean distance", "largest", "best of so many"], lines)
