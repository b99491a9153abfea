"""`quam-jax collect`: the images of a run under the file names of other tools."""

from pathlib import Path

import click

from .common import PATH, say


@click.command(epilog="Example: quam-jax collect maps/ --style nnunet --out for_nnunet/")
@click.argument("run_folder", type=PATH)
@click.option(
    "--style",
    required=True,
    type=click.Choice(["nnunet", "monai"]),
    help="nnunet: KIND/CASE.nii.gz, the segmentations in predictions/; monai: CASE/CASE_KIND.nii.gz.",
)
@click.option("--link", is_flag=True, help="Hard links instead of copies, where the file system can.")
@click.option("--out", required=True, type=PATH, help="New folder to write to.")
@click.pass_context
def collect(context: click.Context, run_folder: Path, style: str, link: bool, out: Path) -> None:
    """Copy the images of a run under the file names of nnU-Net or MONAI."""
    from ..results.collect import collect as collect_files

    result = collect_files(run_folder, out, style=style, link=link)
    for name, reason in result.left_out.items():
        say(context, f"left out: {name}: {reason}")
    click.echo(f"{len(result.files)} files: {out}")
