"""What rows and columns of the evidence are called: methods, settings, and the questions that methods are compared in."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from quam_jax.config import Config

LABELS = {
    "softmax": "softmax",
    "temperature": "temperature scaling",
    "tta": "TTA",
    "ensemble": "ensemble of 3",
    "mc_dropout": "MC dropout",
    "laplace": "Laplace, last layer",
    "evidential": "evidential network",
    "prob_unet": "Probabilistic U-Net",
    "quam": "**QUAM-SM, default**",
    "quam_tuned": "**QUAM-SM, tuned**",
    "quam_published": "QUAM-SM, published",
    "quam_regions": "QUAM-SM, regions",
    "quam_pixels": "QUAM-SM, pixels",
    "boundary": "*boundary band*",
    "blur": "*blurred probability*",
    "blurred_mask": "*blurred mask*",
    "random_directions": "*random directions*",
    "quam_no_search": "*default, no search*",
    "quam_published_no_search": "*published, no search*",
    "tta_quam_ranks": "**TTA + QUAM-SM, ranks**",
    "tta_random_ranks": "*TTA + random directions, ranks*",
    "raters_halves": "*other half of the raters*",
}


class Question(NamedTuple):
    """What searches are compared with other methods in: a figure, under which condition, and whether more of it is better."""

    figure: str
    condition: str
    title: str
    sign: int = 1
    scale: float = 1.0


QUESTIONS = (
    Question("total/pcc", "none", "agreement with rater entropy (PCC)"),
    Question("total/partial_pcc_distance", "none", "the same beyond the contour"),
    Question("total/auroc_image", "none", "wrong pixels (AUROC)"),
    Question("total/auroc_image", "shifted", "wrong pixels, shifts (AUROC)"),
    Question("epistemic/auroc_image", "shifted", "the same by the epistemic map"),
    Question("total/aurc_image", "shifted", "AURC x 1000, shifts (lower is better)", -1, 1000.0),
)


def default_settings() -> dict[str, float]:
    """What the tuned search chooses from, as the default has it."""
    config = Config()
    return {"radius": config.targets.radius, "learning_rate": config.search.learning_rate, "slack": config.search.slack}


def label(method: str, result: Mapping[str, Any]) -> str:
    """The name of a row; a default that has changed since the study ran is named by its settings."""
    ran_with = result.get("default", default_settings())
    if method == "quam" and ran_with != default_settings():
        return f"QUAM-SM, {settings_text(ran_with)}"
    return LABELS.get(method, method)


def settings_text(settings: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())
