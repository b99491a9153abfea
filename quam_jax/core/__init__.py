"""The search as a library: targets in, adversarial models found, samples weighed and decomposed.

Stands on jax, optax, numpy and jaxtyping alone; knows no files, no networks of the package and no settings format.
"""
