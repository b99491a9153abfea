"""How a search runs on this hardware: which members go together, how steps follow each other, how much at a time.

step.py writes one step of one member; only this folder knows that there are many. choose.py says what goes together on a kind of
device, measuring.py which other way is faster on this very one, fitting.py what of it the memory takes. members.py runs whole
networks, chunk by chunk (chunk.py), through the compiled programs of programs.py; heads.py runs linear heads, patches.py pixels
on patches. All ways give the same numbers.
"""
