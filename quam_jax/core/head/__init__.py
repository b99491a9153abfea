"""The fast path for a linear head: every pixel its own adversarial head, thousands side by side as matrix products.

problem.py turns a network and its fit data into features and a weight matrix, loss.py has the fit loss of many heads at
once, iterative.py the penalty and backtracking solvers, line_search.py the closed direction with an exact line search.
"""

from .iterative import Asked as Asked
from .iterative import HeadRecord as HeadRecord
from .iterative import search_heads as search_heads
from .line_search import Factor as Factor
from .line_search import fisher as fisher
from .line_search import line_search as line_search
from .problem import HeadProblem as HeadProblem
from .problem import head_features as head_features
from .problem import head_problem as head_problem
from .problem import is_linear_head as is_linear_head
