"""Settings of the trainer, apart from it so that the command line can list them without loading JAX."""

from dataclasses import dataclass

from ..config import require, setting


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; a wrong value is a ValueError that says what was expected."""

    steps: int = setting(2000, "optimiser steps")
    batch_size: int = setting(4, "images a step")
    learning_rate: float = setting(1e-3, "largest learning rate; it rises over the first 5 % and falls as a cosine to 0")
    weight_decay: float = setting(1e-4, "decoupled weight decay of AdamW")
    dice_weight: float = setting(1.0, "weight of the soft Dice loss beside the cross-entropy")
    flips: bool = setting(True, "random flips, and quarter turns where the first two sides are equal")
    rotation: float = setting(0.0, "random rotation in the plane of the first two axes, up to so many degrees")
    scaling: float = setting(0.0, "random size: up to this fraction larger or, inversely, smaller")
    brightness: float = setting(0.1, "random offset, up to this much in the units of the prepared image")
    contrast: float = setting(0.1, "random contrast: up to this fraction more or, inversely, less")
    grain: float = setting(0.0, "standard deviation of added Gaussian noise, itself random up to this")
    crop: int = setting(0, "side of random crops, rounded up to what the network takes; 0: whole images")
    checkpoint_every: int = setting(100, "steps between two writes of the training state")
    seed: int = setting(0, "seed of weights, order, augmentation and dropout")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, "a whole number >= 1", getattr(self, name))
        require(0 < self.learning_rate < float("inf"), "learning_rate", "a number > 0", self.learning_rate)
        for name in ("weight_decay", "dice_weight", "scaling", "brightness", "contrast", "grain"):
            require(0 <= getattr(self, name) < float("inf"), name, "a number >= 0", getattr(self, name))
        require(0 <= self.rotation <= 180, "rotation", "0 to 180 degrees", self.rotation)
        require(self.crop >= 0, "crop", "a whole number >= 0", self.crop)
        require(self.seed >= 0, "seed", "a whole number >= 0", self.seed)
