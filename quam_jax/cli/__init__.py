"""The command line: `quam-jax COMMAND`. Commands import what they need when they run, so that --help is instant."""

from .main import main

__all__ = ["main"]
