"""What the PyTorch side of benchmarks.real_size searches: images, wanted masks, fit crops and weights, as our run has them."""

import json
import sys
from pathlib import Path


def main() -> None:
    model_path, images, fit_images, fit_masks, problem, state = map(Path, sys.argv[1:])
    import jax
    import numpy as np

    import quam_jax
    from converters.mapping import to_torch
    from quam_jax.case.fit import read_fit_images
    from quam_jax.config import FitConfig
    from quam_jax.core.fit import largest_divisor
    from quam_jax.core.layout.choose import FILLS
    from quam_jax.core.layout.work import pixel_operations
    from quam_jax.data.datasets import find_cases
    from quam_jax.models.description import preprocessing_of
    from quam_jax.models.predict import predict
    from quam_jax.targets.masks import wanted_mask

    model = quam_jax.load_model(model_path, arch="att_unet" if model_path.suffix == ".pth" else None)
    preprocessing, cases = preprocessing_of(model), find_cases(fit_images, fit_masks)
    known = read_fit_images(cases, fit_masks, model=model, preprocessing=preprocessing, settings=FitConfig())
    multiple = model.network.size_multiple
    prepared, wanted = [], []
    for path in sorted(images.iterdir()):
        image = preprocessing.apply(quam_jax.read_image(path).array)
        labels = jax.numpy.argmax(predict(model, image), -1)
        masks = [
            wanted_mask(labels, shape, radius=1, classes=2, element="square", outside="edge") for shape in ("dilate", "erode")
        ]
        wanted.append(np.stack([np.asarray(mask) for mask in masks]))
        prepared.append(np.pad(image, [*((0, -n % multiple) for n in image.shape[:-1]), (0, 0)], mode="edge"))
    whole = [pair for read in known.whole for pair in read()]
    sides = [(0, -n % multiple) for n in whole[0][1].shape] if whole else []
    image = prepared[0][..., 0].size
    operations = pixel_operations(model.network, model.params, model.stats, prepared[0][None]) * image
    at_once = int(image / known.labels[0, 0].size * max(1.0, FILLS / operations))  # as core/layout/fitting.py splits them
    np.savez(
        problem,
        images=np.stack(prepared),
        wanted=np.stack(wanted),
        fit=known.images[0],
        labels=known.labels[0],
        micro=largest_divisor(known.images.shape[1], at_once),
        whole=np.stack([np.pad(x, [*sides, (0, 0)], mode="edge") for x, _ in whole]) if whole else known.images[0][:0],
        whole_labels=np.stack([np.pad(y, sides, constant_values=-1) for _, y in whole]) if whole else known.labels[0][:0],
    )
    np.savez(state, **{k: np.asarray(v) for k, v in to_torch(model.network, model.params, model.stats).items()})
    arguments = {**dict(model.network.arguments), "drop": 0.0, "decoder_drop": 0.0}
    state.with_suffix(".json").write_text(json.dumps(arguments))


if __name__ == "__main__":
    main()
