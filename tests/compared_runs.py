"""Run folders of one case with what a comparison and an export to DICOM read of them."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from quam_jax.case.structures import structure_volumes
from quam_jax.data.maps import write_map
from quam_jax.data.records import write_json
from quam_jax.data.volumes import read_image
from quam_jax.results.comparison import Date


def write_run(folder: Path, moment: Date, *, affine: np.ndarray, names: tuple[str, ...] = ("organ",), model: str = "m") -> Path:
    """A run folder with what a comparison reads of it."""
    (folder / "report_data").mkdir(parents=True)
    image = nib.Nifti1Image(moment.probs[..., 1].astype(np.float32) * 100, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    nib.save(image, folder / "image.nii.gz")
    read = read_image(folder / "image.nii.gz")
    outputs = {}
    for key, ending, values, kind in (
        ("segmentation", "seg", moment.labels, "label"),
        ("reference", "desc-reference_probseg", moment.probs, "probability"),
        ("epistemic", "desc-epistemic_uncertainty", moment.epistemic, "uncertainty"),
    ):
        outputs[key] = write_map(folder / f"p_{ending}", values, read.geometry, kind=kind)[0].name  # type: ignore[arg-type]
    np.savez_compressed(folder / "report_data" / "p.npz", image=read.array[..., 0])
    adversarial = np.stack([ndimage.binary_dilation(moment.labels), ndimage.binary_erosion(moment.labels)]).astype(int)
    volumes = structure_volumes(
        moment.labels,
        moment.probs[..., 1:],
        adversarial,
        structures=np.eye(len(names) + 1, dtype=bool)[1:],
        names=names,
        voxel=math.prod(read.geometry.voxel_sides) / 1000,
    )
    write_json(folder / "p.json", {"case": "p", "digest": "d", "outputs": outputs, "volumes": volumes, "config": {}})
    write_json(folder / "run.json", {"digest": "r", "cases": ["p"], "model": {"digest": model}})
    return folder
