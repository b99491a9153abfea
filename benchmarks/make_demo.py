"""The demonstration that ships with the package, rebuilt from the original data: pictures, masks, trained network.

`python -m benchmarks.make_demo --data FOLDER` reads FOLDER/images/CASE.png, FOLDER/masks/CASE_RATER.png and
FOLDER/LICENSE.txt (BU-BIL, data set 1), shrinks all 8 by 8, trains on 14 cases, and writes quam_jax/demo_data and
benchmarks/results/demo_model.json. The settings below were chosen on the validation cases alone; the test cases are
measured once, at the end, through the files that ship.
"""

import argparse
import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num, UInt8
from PIL import Image

from .record import write_result

OUT = Path(__file__).resolve().parent.parent / "quam_jax" / "demo_data"
BLOCK = 8
NETWORK = {"in_channels": 1, "n_classes": 2, "channels": 16, "is_batchnorm": True, "drop": 0.0, "decoder_drop": 0.0}
SETTINGS = {
    "steps": 2400,
    "batch_size": 4,
    "crop": 64,
    "learning_rate": 3e-3,
    "weight_decay": 1e-3,
    "rotation": 45.0,
    "scaling": 0.25,
    "brightness": 0.5,
    "contrast": 0.5,
    "grain": 0.2,
    "checkpoint_every": 200,
}

NOTICE = """# Demonstration data and network

This product includes software developed by Boston University.

## Pictures and masks
- BU-BIL, data set 1: phase-contrast microscopy of rat smooth muscle cells, 811x1024 pixels, each cell outlined by several
  people. Copyright (c) 2014, Boston University; redistributed under the terms in LICENSE.txt, which asks for the
  acknowledgement above.
- Please cite: D. Gurari, D. Theriault, M. Sameki, B. Isenberg, T. A. Pham, A. Purwada, P. Solski, M. Walker, C. Zhang,
  J. Y. Wong and M. Betke. "How to Collect Segmentations for Biomedical Images? A Benchmark Evaluating the Performance of
  Experts, Crowdsourced Non-Experts, and Algorithms." Winter Conference on Applications of Computer Vision (WACV), 2015.
- Source: the copy in github.com/tobastin/CS760-Project-Lungs (commit 97d69b49028adc61c1f52a2cd2be3fda881608ad, folder
  DataSet/Rabbit/BU-BIL_Dataset1). There the object is black; here 1 is the cell.
- Raters: persons 1, 3, 4 and 5, each with the tools ImageJ and Amira: 8 masks a picture. Person 2 is left out, because in
  that copy these masks equal the gold standard bit for bit.
- Changed: pictures and masks are shrunk to {height}x{width} by the mean of {block}x{block} blocks (811 rows are cut to
  {rows}); pictures are rounded to whole grey values, a mask is 1 where at least half of its block is.
- {total} of the 34 pictures of the data set, sorted by name and dealt out in turn: {train} for training, {validation} to
  choose settings (not shipped), {test} for testing.
- `images`, `masks`: the test cases {test_names}, with all masks.
- `fit_images`, `fit_masks`: the training cases {fit_names}, with the consensus of their raters (at
  least half say cell).

## Network
- `model/att_unet.pth`: the attention U-Net of this package with {channels} channels, in PyTorch's format, trained from
  scratch on the {train} training cases by `python -m benchmarks.make_demo` ({steps} steps). Pictures are given as z-scores.
- Mean Dice against the consensus: training {dice_train:.3f}, validation {dice_validation:.3f}, test {dice_test:.3f}.
- It is a demonstration, trained on very little: no statement about any method, and not for use on real material.
"""


class Specimen(NamedTuple):
    """One case at its shipped size."""

    name: str
    image: UInt8[np.ndarray, "h w"]
    raters: dict[str, Int[np.ndarray, "h w"]]

    @property
    def consensus(self) -> Int[np.ndarray, "h w"]:
        """1 where at least half of the raters say cell."""
        from quam_jax.evaluation.reference_maps import consensus

        return consensus(np.stack(list(self.raters.values())), classes=2, ties="foreground")


def block_mean(array: Num[np.ndarray, "h w"]) -> Float[np.ndarray, "v u"]:
    """The mean of each 8x8 block; rows and columns behind the last whole block are cut off."""
    height, width = (n // BLOCK for n in array.shape)
    return array[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width, BLOCK).mean((1, 3), dtype=np.float64)


def read_specimens(data: Path) -> list[Specimen]:
    """All cases of the original folder, sorted by name."""
    from quam_jax.data.datasets import find_cases
    from quam_jax.data.volumes import read_image, read_labels

    specimens = []
    for case in find_cases(data / "images", data / "masks"):
        picture = read_image(case.image)
        raters = {
            name: (block_mean(read_labels(path, classes=2, like=picture.geometry)) >= 0.5).astype(np.int32)
            for name, path in sorted(case.raters.items())
        }
        image = np.rint(block_mean(picture.array[..., 0])).astype(np.uint8)
        specimens.append(Specimen(case.name, image, raters))
    return sorted(specimens, key=lambda specimen: specimen.name)


def split(specimens: list[Specimen]) -> dict[str, list[Specimen]]:
    """Of every five cases in order the second goes to validation, the fourth to test, the others to training."""
    parts = {"validation": specimens[1::5], "test": specimens[3::5]}
    taken = {specimen.name for part in parts.values() for specimen in part}
    return {"train": [specimen for specimen in specimens if specimen.name not in taken], **parts}


def shipped_fit(train: list[Specimen]) -> list[Specimen]:
    """The training cases that ship: every third from the second on."""
    return train[1::3]


def write_pictures(out: Path, parts: dict[str, list[Specimen]]) -> None:
    """The four folders of pictures and masks, replacing what is there."""
    for name in ("images", "masks", "fit_images", "fit_masks"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    for specimen in parts["test"]:
        _save(out / "images" / f"{specimen.name}.png", specimen.image)
        for rater, mask in specimen.raters.items():
            _save(out / "masks" / f"{specimen.name}_{rater}.png", mask == 1)
    for specimen in shipped_fit(parts["train"]):
        _save(out / "fit_images" / f"{specimen.name}.png", specimen.image)
        _save(out / "fit_masks" / f"{specimen.name}.png", specimen.consensus == 1)


def _save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path, optimize=True)


def shipped_dice(out: Path) -> dict[str, float]:
    """Dice of the shipped network on the shipped test cases against the consensus of their raters, all from files."""
    from quam_jax.data.datasets import find_cases
    from quam_jax.data.preprocess import Preprocessing
    from quam_jax.data.volumes import read_image, read_labels
    from quam_jax.evaluation.reference_maps import consensus
    from quam_jax.models.loading import load_model
    from quam_jax.training.trainer import case_dice

    model = load_model(out / "model" / "att_unet.pth", "att_unet")
    prepare = Preprocessing.from_dict(model.manifest["preprocessing"]).apply
    scores = {}
    for case in find_cases(out / "images", out / "masks"):
        picture = read_image(case.image)
        raters = [read_labels(path, classes=2, like=picture.geometry) for path in case.raters.values()]
        labels = consensus(np.stack(raters), classes=2, ties="foreground")
        scores[case.name] = float(case_dice(model, [(prepare(picture.array), labels)])[0])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/, masks/ and LICENSE.txt")
    parser.add_argument("--out", type=Path, default=OUT, help="where the demonstration is written")
    parser.add_argument("--state", type=Path, help="file of the training state, to go on after an interruption")
    options = parser.parse_args()

    from converters.export import export_weights
    from quam_jax.data.preprocess import Preprocessing
    from quam_jax.models.model import Network
    from quam_jax.training.settings import TrainConfig
    from quam_jax.training.trainer import case_dice, train

    parts = split(read_specimens(options.data))
    write_pictures(options.out, parts)
    shutil.copyfile(options.data / "LICENSE.txt", options.out / "LICENSE.txt")

    prepare = Preprocessing().apply
    cases = {part: [(prepare(s.image[..., None]), s.consensus) for s in parts[part]] for part in ("train", "validation")}
    config = TrainConfig(**SETTINGS)
    model = train(
        Network.create("att_unet", **NETWORK),
        cases["train"],
        config=config,
        checkpoint=options.state,
        validation=cases["validation"],
    )
    (options.out / "model").mkdir(exist_ok=True)
    export_weights(model, options.out / "model" / "att_unet.pth")

    scores = {
        part: dict(zip((s.name for s in parts[part]), case_dice(model, cases[part]).tolist(), strict=True)) for part in cases
    }
    scores["test"] = shipped_dice(options.out)
    means = {f"dice_{part}": float(np.mean(list(values.values()))) for part, values in scores.items()}
    fit_names = [specimen.name for specimen in shipped_fit(parts["train"])]
    height, width = parts["test"][0].image.shape
    (options.out / "NOTICE.md").write_text(
        NOTICE.format(
            height=height,
            width=width,
            block=BLOCK,
            rows=height * BLOCK,
            total=sum(map(len, parts.values())),
            **{part: len(specimens) for part, specimens in parts.items()},
            channels=NETWORK["channels"],
            steps=config.steps,
            test_names=", ".join(scores["test"]),
            fit_names=", ".join(fit_names),
            **means,
        )
    )
    rows = [{"split": part, "cases": len(values), "dice": means[f"dice_{part}"]} for part, values in scores.items()]
    hashes = {part: {s.name: hashlib.sha256(s.image.tobytes()).hexdigest() for s in parts[part]} for part in parts}
    write_result(
        "demo_model",
        rows,
        dice=scores,
        image_sha256=hashes,
        fit=fit_names,
        network=NETWORK,
        settings=dataclasses.asdict(config),
        validation_dice=model.manifest["training"]["validation_dice"],
    )


if __name__ == "__main__":
    main()
