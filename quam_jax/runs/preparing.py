"""What every process of a run makes before its first case: the model and the fit data, read once, and the digest of all of it."""

import datetime
from typing import Any, NamedTuple

from ..config import to_dict
from ..config.sizes import bytes_in
from ..core.progress import tell
from ..data.records import digest, digest_arrays, plain
from ..memory import budget, require_room
from ..version import __version__
from .announcement import describe
from .guaranteeing import known_of, require_same
from .quantifier import Quantifier, find_quantifier, models_digest
from .request import RunRequest
from .work import find_lanes


class Prepared(NamedTuple):
    """A run before its first case: its lanes, what identifies it, what its digest is made of, and what run.json says of it."""

    lanes: list[Quantifier]
    digest: str
    parts: dict[str, str]
    info: dict[str, Any]

    @property
    def quantifier(self) -> Quantifier:
        """The first lane, which has what all share."""
        return self.lanes[0]


def prepare(request: RunRequest) -> Prepared:
    """Load the model and read the fit data; ValueError, with nothing written, for what cannot be used."""
    began = datetime.datetime.now(datetime.UTC)
    asked = bytes_in(request.config.execution.memory)
    budget(asked)  # before anything is there
    tell("loading the model")
    models = request.load()
    require_room(sum(4 * model.parameter_count for model in models), asked)
    model_digest = models_digest(models, request.model_name)
    quantifier = find_quantifier(models, request)
    own = quantifier.own_fit
    if request.strict and own.findings:
        raise ValueError(f"{request.fit_images}: {own.warning}; nothing was written (--strict)")
    settings = to_dict(request.config.without_layout())
    if request.calibration is not None:
        about = known_of(
            model=model_digest,
            config=to_dict(request.config),
            preprocessing=quantifier.preparation,
            fit=quantifier.known.hashes,
        )
        require_same(request.calibration, plain(about))
    fit = (quantifier.known.hashes, digest_arrays({"labels": quantifier.known.labels}))
    run_digest = digest(__version__, model_digest, settings, *fit, quantifier.preparation)
    parts = {
        "model": model_digest,
        "settings": digest(settings),
        "fit data": digest(*fit),
        "preprocessing": digest(quantifier.preparation),
        "images": digest([case.name for case in quantifier.cases]),
    }
    lanes = find_lanes(quantifier, request)
    info = describe(quantifier, request, run_digest=run_digest, model_digest=model_digest, began=began, lanes=len(lanes))
    return Prepared(lanes, run_digest, parts, info)
