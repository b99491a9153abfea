"""The records: pytrees whose axes are named by the letters that the module explains."""

import re
import typing

import jax
import jax.numpy as jnp
import pytest

from quam_jax.core import types
from quam_jax.core.types import FitData, Samples, Targets, Trajectory, Uncertainty, ViewMean

RECORDS = [Targets, FitData, Trajectory, Samples, Uncertainty, ViewMean]


@pytest.mark.parametrize("record", RECORDS)
def test_every_axis_letter_is_explained(record: type) -> None:
    explained = set(re.findall(r"`\*?(\w+)`", types.__doc__ or ""))
    for name, annotation in typing.get_type_hints(record).items():
        kinds = [kind for kind in typing.get_args(annotation) or (annotation,) if kind is not type(None) and kind is not ViewMean]
        letters = {axis.removeprefix("*") for kind in kinds for axis in kind.dim_str.split()}
        assert letters <= explained, f"{record.__name__}.{name} uses {letters - explained}"


@pytest.mark.parametrize("record", RECORDS)
def test_records_pass_through_jit_and_vmap(record: type) -> None:
    values = record(*(jnp.arange(6.0).reshape(2, 3) + k for k in range(len(record._fields))))
    doubled = jax.jit(jax.vmap(lambda r: jax.tree.map(lambda x: 2 * x, r)))(values)
    assert type(doubled) is record
    for got, given in zip(doubled, values, strict=True):
        assert (got == 2 * given).all()
