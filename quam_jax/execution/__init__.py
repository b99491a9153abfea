"""How a search runs on this hardware: which members go together, how steps follow each other, how much at a time.

search.py writes one step of one member; only this folder knows that there are many. plan.py chooses, members.py runs whole
networks, heads.py linear heads, patches.py pixels on patches, searching.py takes the right one. All ways give the same
numbers.
"""

from .plan import Plan as Plan
from .plan import backend_name as backend_name
from .plan import choose_group as choose_group
from .plan import choose_plan as choose_plan
from .searching import Prepared as Prepared
from .searching import prepare as prepare
from .searching import search as search
from .searching import search_images as search_images
from .searching import search_prepared as search_prepared
