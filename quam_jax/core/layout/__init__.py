"""How a search runs on this hardware: which members go together, how steps follow each other, how much at a time.

step.py writes one step of one member; only this folder knows that there are many. plan.py chooses, members.py runs whole
networks, heads.py linear heads, patches.py pixels on patches. All ways give the same numbers.
"""
