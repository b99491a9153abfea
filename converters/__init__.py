"""From trained PyTorch segmentation networks to `quam_jax` models and back.

Weight files are read without PyTorch. Only the live parity check, which is given a PyTorch module, needs it
installed.
"""
