"""Settings that no number depends on: how a run is laid out on the hardware, and what is written beside the maps."""

from dataclasses import dataclass
from typing import Any, Literal

from .settings import require, setting
from .sizes import bytes_in


@dataclass(frozen=True)
class ExecutionConfig:
    """How members and steps are laid out on the hardware.

    Numbers do not depend on it, so a run goes on under another layout; what does change numbers belongs to another section.
    """

    member_plan: Literal["auto", "vmap", "unroll", "loop"] = setting("auto", "how members run together")
    step_plan: Literal["auto", "scan", "unroll", "loop"] = setting("auto", "how steps follow each other")
    chunk: int = setting(0, "members that run together; 0: chosen from the memory")
    together: int = setting(
        0, "images of one size that are searched together; 0: mapped plans take small ones together, others one at a time"
    )
    devices: int = setting(0, "devices of this machine that share the members of a mapped plan; 0: all")
    memory: str = setting(
        "", "memory that a run keeps to, such as 8GB: of the process, or of each device; without it half of what is free"
    )
    micro: int = setting(0, "fit cases that go through the network at once, their gradients summed; 0: chosen")
    recompute: Literal["auto", "always", "never"] = setting(
        "auto", "whether blocks of the network are run again in the backward pass instead of remembered; auto: if memory is short"
    )

    def __post_init__(self) -> None:
        require(self.chunk >= 0, "chunk", "a whole number >= 0", self.chunk)
        require(self.together >= 0, "together", "a whole number >= 0", self.together)
        require(self.devices >= 0, "devices", "a whole number >= 0", self.devices)
        require(self.micro >= 0, "micro", "a whole number >= 0", self.micro)
        require(not self.memory or bytes_in(self.memory) > 0, "memory", "a size such as 8GB", self.memory)


@dataclass(frozen=True)
class OutputConfig:
    """What is written of a case beside its maps; no number depends on it."""

    keep_models: bool = setting(
        False,
        "write the kept adversarial models of every image that is searched whole: CASE_models.npz, their weights in place of the "
        "given ones, which quam_jax.read_kept_models reads",
    )


NEUTRAL: dict[str, Any] = {"execution": ExecutionConfig, "outputs": OutputConfig}
"""These sections of the settings by name: a run goes on under others, and results are compared in spite of them."""
