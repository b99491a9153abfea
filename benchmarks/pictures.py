"""The pictures of the README and the tutorials, made anew: `python -m benchmarks.pictures [--shared DIR] [NAME ...]`.

`grey_matter` runs the blocks of docs/tutorials/flax-network.md on the weights and images in --shared and draws their result;
`search_as_library` runs those of its tutorial and draws trajectories. `own_network` and `several_raters` draw a picture of the
demo; `report` and `case` run it and photograph its report, and one case of it, with a headless Chromium.
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
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("challenge_model.hdf5").symlink_to(shared.resolve() / "weights" / "sct_gm" / "challenge_model.hdf5")
        Path("spinalcord_gm").symlink_to(shared.resolve() / "data" / "spinalcord_gm")
        names = run_blocks("flax-network.md")
    draw_case(PICTURES / "grey_matter.png", names["images"][0][..., 0], names["maps"], names["masks"][0])


def run_blocks(tutorial: str, *, last: str = "") -> dict[str, Any]:
    """The names that the Python blocks of a tutorial leave, up to the block that holds `last`."""
    names: dict[str, Any] = {}
    page = (ROOT / "docs" / "tutorials" / tutorial).read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(compile(block, tutorial, "exec"), names)
        if last and last in block:
            break
    return names


def search_as_library(_: Path) -> None:
    """Objective and fit loss of the two adversarial models of the tutorial's first search, step by step."""
    import matplotlib.pyplot as plt

    found = run_blocks("search-as-library.md", last="core.search")["found"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for member, name in enumerate(("wants all of the square", "wants nothing there")):
        axes[0].plot(found.objective[0, member] - found.objective[0, member, 0], marker="o", label=name)
        axes[1].plot(found.fit_loss[0, member], marker="o", label=name)
    axes[1].axhline(float(found.bound[0, 0, 0]), color="black", linestyle="--", label="bound")
    for axis, title in zip(axes, ("objective, less that of the given network", "fit loss, and its bound"), strict=True):
        axis.set(title=title, xlabel="step", ylabel="nats")
        axis.legend(fontsize=8)
    figure.savefig(PICTURES / "search_as_library.png", dpi=100)


def demo_case() -> tuple[np.ndarray, Any, np.ndarray]:
    """Image `[h w i]`, maps in the default setting and the masks `[r h w]` of the raters of one case of the demo."""
    import quam_jax

    data = Path(quam_jax.__file__).parent / "demo_data"
    model = quam_jax.load_model(data / "model" / "att_unet.pth", arch="att_unet")
    fit = quam_jax.fit_data(model, *quam_jax.read_pairs(model, data / "fit_images", data / "fit_masks"))
    image = quam_jax.read_image(data / "images" / "B07.png").array
    maps = quam_jax.quantify(model, quam_jax.preprocessing_of(model).apply(image), fit)
    paths = sorted((data / "masks").glob("B07_*"))
    return image, maps, np.stack([quam_jax.read_labels(path, classes=2, like=None) for path in paths])


def own_network(_: Path) -> None:
    """A picture of the demo in the default setting, with the mask of one of its raters."""
    image, maps, masks = demo_case()
    turned = maps._replace(**{name: getattr(maps, name)[::-1].T for name in ("segmentation", "total", "aleatoric", "epistemic")})
    draw_case(PICTURES / "own_network.png", image[::-1, :, 0].T, turned, masks[0, ::-1].T, part=1.0)


def several_raters(_: Path) -> None:
    """The outlines of all raters, the entropy of their mean, and maps of the same case with their correlation with it."""
    import matplotlib.pyplot as plt

    import quam_jax

    image, maps, masks = demo_case()
    mean = masks.mean(0)
    wanted = -sum(p * np.log(np.where(p > 0, p, 1)) for p in (mean, 1 - mean))
    shown = {"total": maps.total, "aleatoric": maps.aleatoric, "softmax": maps.softmax}
    row = quam_jax.evaluate(shown, masks, segmentation=maps.segmentation)
    figure, axes = plt.subplots(1, 5, figsize=(15.2, 3), layout="constrained")
    axes[0].imshow(image[..., 0], cmap="gray")
    for mask in masks:
        axes[0].contour(mask, levels=[0.5], colors="#ffb000", linewidths=0.8)
    titles = {name: f"{name}: PCC {row[f'{name}/pcc']:.2f}" for name in shown}
    axes[0].set_title(f"{len(masks)} raters")
    for axis, (title, values) in zip(
        axes[1:], (("entropy of the raters' mean", wanted), *((titles[n], v) for n, v in shown.items())), strict=True
    ):
        drawn = axis.imshow(values, cmap="magma", vmin=0, vmax=np.log(2))
        axis.set_title(title)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(drawn, ax=axes[-1], label="nats", shrink=0.85)
    figure.savefig(PICTURES / "several_raters.png", dpi=100)


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


def report(_: Path) -> None:
    """The report of the demo, as a browser shows its top."""
    photograph("report.png", 900)


def case(_: Path) -> None:
    """A case of the demo's report, opened."""
    photograph(
        "case.png", 1000, fragment="#case-0", style="body > :not(main), main > :not(#case-list), .heading { display: none }"
    )


def photograph(name: str, height: int, *, fragment: str = "", style: str = "") -> None:
    """The top of the demo's report in a headless browser, with a style of its own; the window holds all of the page.

    A browser that has scrolled photographs what it did not draw.
    """
    from PIL import Image

    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit(f"benchmarks.pictures: expected one of {', '.join(BROWSERS)}, found none")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from quam_jax.cli import main; main()", "demo", "--out", "demo"]
        subprocess.run(command, cwd=folder, check=True)
        page, shot = Path(folder) / "demo" / "report.html", Path(folder) / "shot.png"
        page.write_text(page.read_text().replace("</head>", f"<style>{style}</style></head>", 1))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--hide-scrollbars"]
        tall = f"--window-size=1280,{3000 if fragment else height}"
        subprocess.run([browser, *options, tall, f"--screenshot={shot}", page.as_uri() + fragment], check=True)
        Image.open(shot).crop((0, 0, 1280, height)).save(PICTURES / name, optimize=True)


KINDS = {
    "grey_matter": grey_matter,
    "own_network": own_network,
    "several_raters": several_raters,
    "search_as_library": search_as_library,
    "report": report,
    "case": case,
}


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
