"""Keras weights in HDF5 files (.h5): every numeric dataset by its path, attributes as metadata.

Needs h5py, which comes with the optional extra `keras`. The HDF5 library is not made for damaged files (a few
flipped bytes make it loop for ever), so it runs in another process with a time limit, which hands over a
safetensors file.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .archive import Source
from .safetensors_file import read_safetensors

MAGIC = b"\x89HDF\r\n\x1a\n"
SECONDS = 30.0
SECONDS_PER_BYTE = 1e-6
_WORKER = Path(__file__).with_name("keras_worker.py")


def read_keras(source: Source) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any], str]:
    """Return the tensors by dataset path, the metadata, and the group taken for the whole ("" if none).

    Raises ValueError if h5py is not installed, or the file is damaged or reaches outside itself.
    """
    if importlib.util.find_spec("h5py") is None:
        raise ValueError("reading HDF5 needs h5py: pip install 'quam_jax[keras]'")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "copy.safetensors"
        _run([str(source.path), str(target)], SECONDS + source.size * SECONDS_PER_BYTE)
        with target.open("rb") as stream:
            tensors, metadata = read_safetensors(Source(target, stream, target.stat().st_size))
    return tensors, json.loads(metadata["rest"]), metadata["wrapper"]


def _run(arguments: list[str], seconds: float) -> None:
    # one thread each: the pools of linear algebra libraries would count against the worker's memory limit
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_WORKER), *arguments],
            env=environment,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        # without the chained error, whose text is the command
        raise ValueError(f"a damaged HDF5 file: not read within {seconds:.0f} seconds") from None
    if done.returncode == 2 and done.stderr:
        raise ValueError(done.stderr.decode("utf-8", "replace").splitlines()[-1])
    if done.returncode:
        raise ValueError(f"a damaged HDF5 file: the HDF5 library stopped with code {done.returncode}")
