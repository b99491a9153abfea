"""What the committed studies say: the sections of docs/evidence.md, all computed from the results."""

import json
from pathlib import Path
from typing import Any

from .evidence_tables import main_table, shrinking_table
from .evidence_tuning import choice, chosen
from .evidence_verdicts import glance, verdicts
from .study_plans import STUDIES

PICTURES = {
    "strip": "strip",
    "curves": "Reliability and risk-coverage curves",
    "tuning": "Scores on validation cases, by setting",
}
SHRINKING = {"shrinking_crisp": "More training data"}


def studies(results: Path) -> str:
    """The sections of all studies that are in the folder of results."""
    sections = []
    for name, study in STUDIES.items():
        result = _read(results / f"methods_{name}.json")
        if result:
            there = [
                (kind, text)
                for kind, text in PICTURES.items()
                if (results.parent.parent / f"docs/pictures/methods_{name}_{kind}.png").exists()
            ]
            pictures = "".join(
                f"\n\n{'!' if kind == 'strip' else ''}[{text}](pictures/methods_{name}_{kind}.png)" for kind, text in there
            )
            sections.append(f"## {study.title}\n\n{main_table(result)}{pictures}\n\n{verdicts(result)}\n\n{chosen(result)}")
    found = {name: result for name in STUDIES if (result := _read(results / f"methods_{name}.json"))}
    if found:
        sections.insert(0, f"## At a glance\n\n{glance(found)}")
        sections.append(f"## Choice of the default\n\n{choice(list(found.values()))}")
    for name, title in SHRINKING.items():
        result = _read(results / f"{name}.json")
        if result:
            sections.append(f"## {title}\n\n{shrinking_table(result)}")
    return "\n\n".join(sections)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
