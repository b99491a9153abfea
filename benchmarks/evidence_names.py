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
    "quam_thorough": "**QUAM-SM, thorough**",
    "quam_fast": "**QUAM-SM, fast**",
    "quam_blur": "**QUAM-SM, displaced**",
    "quam_plain": "QUAM-SM, no views",
    "quam_tuned": "**QUAM-SM, tuned**",
    "quam_published": "QUAM-SM, published",
    "quam_regions": "QUAM-SM, regions",
    "quam_pixels": "QUAM-SM, pixels",
    "boundary": "*boundary band*",
    "blur": "*blurred probability*",
    "blurred_mask": "*blurred mask*",
    "random_directions": "*random directions*",
    "tta_ensemble": "*TTA of the ensemble*",
    "tta_blur": "*TTA, blurred*",
    "random_views": "*random directions, views*",
    "random_views_pooled": "*random directions and TTA, pooled*",
    "mc_dropout_views": "*MC dropout, views*",
    "quam_no_search": "*default, no search*",
    "quam_thorough_no_search": "*thorough, no search*",
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


def default_settings() -> dict[str, Any]:
    """What the tuned search chooses from, as the default has it, and the views through which its models look."""
    config = Config()
    return {
        "radius": config.targets.radius,
        "learning_rate": config.search.learning_rate,
        "slack": config.search.slack,
        "views": config.samples.views,
    }


def ran_with(result: Mapping[str, Any]) -> dict[str, Any]:
    """The default with which a study ran; searches had no views before they are named there."""
    return {"views": "none"} | dict(result["default"]) if "default" in result else default_settings()


def label(method: str, result: Mapping[str, Any]) -> str:
    """The name of a row; a default that has changed since the study ran is named by its settings."""
    own = ran_with(result)
    if method in ("quam", "quam_no_search") and own != default_settings():
        return f"QUAM-SM, {settings_text(own)}" if method == "quam" else "*the same, no search*"
    return LABELS.get(method, method)


def settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value if isinstance(value, str) else f'{value:g}'}" for name, value in settings.items())
