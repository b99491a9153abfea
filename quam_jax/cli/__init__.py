"""The command line: `quam-jax COMMAND`. Commands import what they need when they run, so that --help is instant."""

from .commands import main

__all__ = ["main"]
