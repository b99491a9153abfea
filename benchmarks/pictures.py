"""The pictures of the README and the tutorials, made anew: `python -m benchmarks.pictures [--shared DIR] [NAME ...]`.

`grey_matter` runs the blocks of docs/tutorials/flax-network.md on the weights and images in --shared and draws their result;
`own_network` draws a picture of the demo, and `report` runs it and photographs its report with a headless Chromium.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def grey_matter(shared: Path) -> None:
    """A real slice with the given network's prediction and the maps."""
    page = (ROOT / "docs" / "tutorials" / "flax-network.md").read_text()
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("challenge_model.hdf5").symlink_to(shared.resolve() / "weights" / "sct_gm" / "challenge_model.hdf5")
        Path("spinalcord_gm").symlink_to(shared.resolve() / "data" / "spinalcord_gm")
        for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
            exec(compile(block, "flax-network.md", "exec"), names)
    draw_case(PICTURES / "grey_matter.png", names["images"][0][..., 0], names["maps"], names["masks"][0])


def own_network(_: Path) -> None:
    """A picture of the demo in the default setting, with the mask of one of its raters."""
    import quam_jax

    data = Path(quam_jax.__file__).parent / "demo_data"
    model = quam_jax.load_model(data / "model" / "att_unet.pth", arch="att_unet")
    fit = quam_jax.fit_data(model, *quam_jax.read_pairs(model, data / "fit_images", data / "fit_masks"))
    image = quam_jax.read_image(data / "images" / "B07.png").array
    maps = quam_jax.quantify(model, quam_jax.preprocessing_of(model).apply(image), fit)
    mask = quam_jax.read_labels(sorted((data / "masks").glob("B07_*"))[0], classes=2, like=None)
    turned = maps._replace(**{name: getattr(maps, name)[::-1].T for name in ("segmentation", "total", "aleatoric", "epistemic")})
    draw_case(PICTURES / "own_network.png", image[::-1, :, 0].T, turned, mask[::-1].T, part=1.0)


def draw_case(path: Path, image: np.ndarray, maps: Any, mask: np.ndarray, *, part: float = 0.32) -> None:
    """The middle `part` of an image with two outlines, beside its maps on one scale from 0 to ln 2 nats."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    middle = tuple(slice(round((1 - part) / 2 * n), round((1 + part) / 2 * n)) for n in image.shape)
    figure, axes = plt.subplots(1, 4, figsize=(12.4, 3.5), layout="constrained")
    axes[0].imshow(image[middle].T, cmap="gray", origin="lower")
    lines = {"manual mask": (mask, "#ffb000"), "prediction": (maps.segmentation, "#36c5f0")}
    for labels, colour in lines.values():
        axes[0].contour(labels[middle].T, levels=[0.5], colors=colour, linewidths=1.4)
    axes[0].legend(
        handles=[Line2D([], [], color=colour, label=name) for name, (_, colour) in lines.items()], fontsize=8, loc="lower left"
    )
    axes[0].set_title("image")
    kinds = {"epistemic": ": models disagree", "aleatoric": ": all are undecided", "total": " = epistemic + aleatoric"}
    for axis, (kind, title) in zip(axes[1:], kinds.items(), strict=True):
        shown = axis.imshow(getattr(maps, kind)[middle].T, cmap="magma", vmin=0, vmax=np.log(2), origin="lower")
        axis.contour(maps.segmentation[middle].T, levels=[0.5], colors="white", linewidths=0.5)
        axis.set_title(kind + title)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes[-1], label="nats", shrink=0.85)
    figure.savefig(path, dpi=100)


def report(shared: Path) -> None:
    """The report of the demo, as a browser shows its top."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"benchmarks.pictures: expected one of {', '.join(BROWSERS)}, found none")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from quam_jax.cli import main; main()", "demo", "--out", "demo"]
        subprocess.run(command, cwd=folder, check=True)
        photograph = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
        photograph += ["--window-size=1280,900", "--hide-scrollbars", f"--screenshot={PICTURES / 'report.png'}"]
        subprocess.run([*photograph, (Path(folder) / "demo" / "report.html").as_uri()], check=True)


KINDS = {"grey_matter": grey_matter, "own_network": own_network, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(KINDS), metavar="NAME", help=f"some of {', '.join(KINDS)}; default: all")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with weights/ and data/")
    given = parser.parse_args()
    for name in given.names:
        if name not in KINDS:
            parser.error(f"expected some of {', '.join(KINDS)}, got {name}")
        KINDS[name](given.shared)


if __name__ == "__main__":
    main()
