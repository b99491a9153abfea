"""`quam-jax dicom`: a DICOM series in as a NIfTI image, a case of a run out as DICOM objects."""

from pathlib import Path

import click

from .common import PATH


@click.group(epilog="Example: quam-jax dicom export maps/ CASE --series scans/CASE --out objects/")
def dicom() -> None:
    """Read a DICOM series, and write results as Segmentation and Parametric Map."""


@dicom.command("import", epilog="Example: quam-jax dicom import scans/CASE --out images/CASE_0000.nii.gz")
@click.argument("series", type=PATH)
@click.option("--out", required=True, type=PATH, help="NIfTI file to write.")
def import_(series: Path, out: Path) -> None:
    """Turn the images of one DICOM series into a NIfTI file, in the units of its rescale (HU for CT)."""
    from ..results.dicom_export import import_series

    read = import_series(series, out)
    size = " x ".join(map(str, read.array.shape))
    click.echo(f"{out}: {size} voxels of {' x '.join(f'{s:g}' for s in read.geometry.spacing)} mm, {read.geometry.orientation}")


@dicom.command(epilog="Example: quam-jax dicom export maps/ CASE --series scans/CASE --out objects/")
@click.argument("run", type=PATH)
@click.argument("case")
@click.option("--series", required=True, type=PATH, help="Folder of the series that the case was computed from.")
@click.option("--out", required=True, type=PATH, help="Folder for the DICOM objects.")
def export(run: Path, case: str, series: Path, out: Path) -> None:
    """Write a case of a run as DICOM: its labels as Segmentation, its maps as Parametric Maps."""
    from ..results.dicom_export import export_case

    for path in export_case(run, case, series=series, out=out):
        click.echo(str(path))
