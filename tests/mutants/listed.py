"""The mutants: changes of core, targets, cases, volumes, audit and evaluation that would give wrong results without a word."""

from .mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
