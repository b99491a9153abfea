"""Keras weights in HDF5 files (.h5): every numeric dataset by its path, attributes as metadata.

Needs h5py, which comes with the optional extra `keras`. The HDF5 library parses the file, so it is as robust
as that library is; what could reach outside the file (external links, external or virtual storage, filters
that are plugins) is refused, and no dataset is read that is larger than the bytes present allow.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .archive import Source
from .records import Budget, quote

MAGIC = b"\x89HDF\r\n\x1a\n"
WEIGHT_GROUP = "model_weights"  # where a whole saved model keeps what a file of weights has at its top
OPTIMISER_GROUPS = frozenset({"optimizer_weights", "optimizer"})
BUILT_IN_FILTERS = frozenset(
    {1, 2, 3, 4, 5, 6, 32000}
)  # deflate, shuffle, checksum, szip, nbit, scale-offset, lzf
_DEEPEST = 50
_MOST_NAMES = 200_000


def read_keras(source: Source) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any], str]:
    """Return the tensors by dataset path, the metadata and the name of the group that was taken for the whole.

    Raises ValueError if h5py is not installed, or the file is damaged or reaches outside itself.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError("reading HDF5 needs h5py: pip install 'quam_jax[keras]'") from error
    # compressed chunks may grow, weights hardly do
    budget = Budget(20 * source.size + (16 << 20))
    try:
        with h5py.File(source.path, "r", locking=False) as file:
            wrapper = WEIGHT_GROUP if isinstance(_member(file, WEIGHT_GROUP, h5py), h5py.Group) else ""
            root = file[wrapper] if wrapper else file
            tensors: dict[str, np.ndarray[Any, Any]] = {}
            metadata = _attributes(file)
            for name, dataset in _datasets(root, "", 0, h5py):
                values = _values(name, dataset, budget)
                if values is None:
                    metadata[name] = f"<dataset {dataset.dtype}>"
                else:
                    tensors[name] = values
    except ValueError:
        raise
    # h5py passes on whatever the HDF5 library meets in a damaged file
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        NotImplementedError,
        OverflowError,
    ) as error:
        raise ValueError(f"a damaged HDF5 file: {error}") from error
    return tensors, metadata, wrapper


def _member(group: Any, name: str, h5py: Any) -> Any:
    link = group.get(name, getlink=True)
    if link is None or isinstance(link, h5py.SoftLink):
        return None
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"refused: {quote(name)} is a link to another file")
    return group[name]


def _datasets(group: Any, prefix: str, depth: int, h5py: Any) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError(f"groups nested more than {_DEEPEST} deep")
    for count, key in enumerate(group):
        if count > _MOST_NAMES:
            raise ValueError(f"a group of more than {_MOST_NAMES} members")
        member = _member(group, key, h5py)
        name = f"{prefix}{key}"
        if isinstance(member, h5py.Group) and not (depth == 0 and key in OPTIMISER_GROUPS):
            yield from _datasets(member, f"{name}/", depth + 1, h5py)
        elif isinstance(member, h5py.Dataset):
            yield name, member


def _values(name: str, dataset: Any, budget: Budget) -> np.ndarray[Any, Any] | None:
    """The values in native byte order; None if they are not numbers."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"refused: dataset {quote(name)} keeps its values in another file")
    if dataset.shape is None or dataset.dtype.kind not in "biufc":
        return None
    layout = dataset.id.get_create_plist()
    filters = {layout.get_filter(index)[0] for index in range(layout.get_nfilters())}
    if not filters <= BUILT_IN_FILTERS:
        raise ValueError(f"dataset {quote(name)} is packed by filters {sorted(filters - BUILT_IN_FILTERS)}")
    nbytes = dataset.size * dataset.dtype.itemsize
    if nbytes > dataset.id.get_storage_size() and not filters:
        raise ValueError(
            f"truncated: dataset {quote(name)} of shape {dataset.shape} has not all of its values"
        )
    budget.take(nbytes, f"dataset {quote(name)}")
    values = np.asarray(dataset[()])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _attributes(file: Any) -> dict[str, Any]:
    """The file's own attributes (Keras keeps its version and the architecture there) as plain values."""
    found: dict[str, Any] = {}
    for name in file.attrs:
        value = file.attrs[name]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, np.ndarray | np.generic):
            value = (
                [
                    part.decode("utf-8", "replace") if isinstance(part, bytes) else part
                    for part in value.tolist()
                ]
                if value.ndim
                else value.item()
            )
        if isinstance(value, str | int | float | bool | list):
            found[name] = value
    return found
