"""A run in its pieces: what is asked (request), what cases share (quantifier), one case (cases), three steps at once (stages),
one process at work (work), what came of it (ledger) and the end of it all (ending, merge). `run.run` puts them together in one
process, `on_ray.run_on_ray` by workers on many machines.
"""
