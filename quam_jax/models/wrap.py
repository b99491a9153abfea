"""A network that the caller has in memory as a model: any JAX function, and modules of Flax, Equinox and Haiku."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ..data.preprocess import Preprocessing
from .frameworks import adapt
from .model import SegmentationModel
from .outputs import declare_outputs
from .wrap_checks import channels_last, example_image, find_blocks, is_first, look


def wrap(
    network: Any,
    params: Any = None,
    stats: Any = None,
    *,
    example: Any,
    head: str | None = None,
    last_block: str | None = None,
    classes: int | None = None,
    channels: Literal["first", "last"] | None = None,
    batched: bool | None = None,
    size_multiple: int | Sequence[int] | None = None,
    arguments: Mapping[str, Any] | None = None,
    outputs: str | None = None,
    regions: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    name: str | None = None,
) -> SegmentationModel:
    """A network in memory as a model: every search, `quantify` and `run` take it.

    Args:
        network: One of
            a function `apply(params, images)`, or `apply(params, stats, images)` with `stats`, that returns logits;
            a Flax NNX module, which holds its parameters itself;
            a Flax Linen module, with the variables that `init` returned as `params`;
            an Equinox module, with its `State` as `stats` where it has one;
            a Haiku transform, with what `init` returned as `params` (and `stats`);
            an object with `apply(params, stats, images, mode)`, as `quam_jax.search` takes it.
        params: The parameters, any tree of arrays. They are named by their dotted path in it, such as `decoder.0.kernel`, and
            computed with in float32.
        stats: What else the function takes, such as running means; it does not move.
        example: What the network is called with: an image or a batch of images as it takes them, prepared. A small one will do.
        head: The parameters of the last layer, a regular expression from the start of their names, or a path (`out` means
            `out` and `out.*`). Without it: the last kernel that the image meets, and what follows.
        last_block: The same of the last block; what lies behind it, such as the head, is added. Without it there is no such cut.
        classes: How many output channels to expect: checked.
        channels: Whether channels come `last`, `[b *space i]`, or `first`, `[b i *space]`, in and out. By default `last`; of an
            Equinox module `first`. Images, logits and maps of the model have channels last in any case.
        batched: Whether the network takes a batch, or one image at a time. By default a batch; an Equinox module one image.
        size_multiple: What sides of images must be a multiple of, one number or one an axis. Without it: found by tracing.
            Images are padded to it and logits cropped back.
        arguments: Further keyword arguments of the call, such as `{"is_training": False}`. NNX modules are put into eval mode
            (on a copy), Equinox ones into inference mode, and Linen modules are called with `train=False`, `training=False`,
            `deterministic=True` or `use_running_average=True` where they take one of these.
        outputs: What output channels mean: `softmax` (classes of which a pixel has one) or `sigmoid` (yes or no each); by
            default softmax, of one channel sigmoid.
        regions: The mask labels of every independent channel by its name, such as `{"WT": [1, 2, 3], "ET": 3}`.
        class_names: Names of the classes, or of independent channels.
        preprocessing: How images are prepared from what files hold, for `run` and `read_pairs`; by default each is brought to
            mean 0 and standard deviation 1.
        name: What the network is called in reports; by default the name of its class or function.

    Returns:
        The model. What was decided for the caller stands in its `manifest["notes"]`.

    Raises:
        ValueError: With one line, for what is no such network, an example that it cannot take, logits of another shape or with
            NaN in them, probabilities in place of logits, images of a batch that see each other (batch statistics), a name that
            matches no parameter, or a block that cannot be cut off.

    A network in memory has no file. It cannot be written by `save_model` nor named on the command line; `quam_jax.run` writes
    the same run folder from Python, and goes on with an interrupted run if the program wraps the same network again: the digest
    of a run covers its parameters and its compiled program, so that another JAX release may ask for `overwrite=True`. It runs in
    eval mode alone: no `mode="train"` (the published setting) and no MC dropout. Pixels in the space `last_block` are searched
    on whole images.

    Examples:
        >>> import jax, jax.numpy as jnp, quam_jax
        >>> def apply(params, images):
        ...     hidden = jax.nn.relu(images @ params["hidden"]["kernel"])
        ...     return hidden @ params["out"]["kernel"] + params["out"]["bias"]
        >>> rng = iter(jax.random.split(jax.random.key(0), 2))
        >>> params = {
        ...     "hidden": {"kernel": jax.random.normal(next(rng), (3, 8))},
        ...     "out": {"kernel": jax.random.normal(next(rng), (8, 2)), "bias": jnp.zeros(2)},
        ... }
        >>> model = quam_jax.wrap(apply, params, example=jnp.ones((1, 16, 16, 3)))
        >>> model
        SegmentationModel(apply: 2D, 3 channels in, 2 classes, 42 parameters)
        >>> model.network.tail_names("head")
        ['out.kernel', 'out.bias']
    """
    adapted = adapt(network, params, stats, arguments=dict(arguments or {}))
    adapted = adapted._replace(
        name=name or adapted.name,
        batched=adapted.batched if batched is None else batched,
        channels_first=adapted.channels_first if channels is None else is_first(channels),
    )
    if not adapted.params:
        raise ValueError(f"{adapted.name}: expected parameters (arrays of floating point), got none")
    call, image = channels_last(adapted), example_image(example, adapted)
    found = look(call, adapted, image, classes=classes, size_multiple=size_multiple)
    blocks, notes = find_blocks(found.network, found.traced, adapted, found.image, head=head, last_block=last_block)
    described = (*found.network.arguments, *((f"cut {cut}", names) for cut, names in blocks.items()))
    built = replace(found.network, arguments=described, blocks=tuple(blocks.items()))
    said = preprocessing.to_dict() if isinstance(preprocessing, Preprocessing) else dict(preprocessing or {"normalise": "zscore"})
    manifest = {
        "source": {"file": None, "module": f"{type(network).__module__}.{adapted.name}", "wrapper": adapted.kind},
        "preprocessing": Preprocessing.from_dict({"channels": built.in_channels, **said}).to_dict(),
        "class_names": None,
        "notes": [*adapted.notes, *found.notes, *notes],
    }
    model = SegmentationModel(built, adapted.params, adapted.stats, manifest)
    return declare_outputs(model, outputs, regions=regions, names=class_names)
