"""The mutants, a file a room: changes that would give wrong results without a word."""

from ..mutant import Mutant
from .case import CASE
from .core import CORE
from .figures import EVALUATION
from .files import FILES
from .guarantees import GUARANTEES
from .inputs import DATA, MODELS, TARGETS
from .layouts import LAYOUTS
from .report import REPORT
from .views import VIEWS

MUTANTS: tuple[Mutant, ...] = (
    *CORE,
    *VIEWS,
    *LAYOUTS,
    *CASE,
    *TARGETS,
    *MODELS,
    *DATA,
    *FILES,
    *EVALUATION,
    *GUARANTEES,
    *REPORT,
)
