"""Which members go together and how steps follow each other on this hardware: asked for, and chosen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax

FILLS = 2**34  # operations of a pass over an image that fills some cores by itself
GROUPED = 2**22  # pixels, times members, of the images that are searched together: bounds what their records take
MOST_IMAGES = 64  # that are searched together


class Budget(NamedTuple):
    """`total` bytes that may be held in all, of which `base` were held when it was made; whether it was `asked` for.

    `now` gives the bytes that are held now and the total as it is now, where the system tells.
    """

    total: int
    base: int = 0
    asked: bool = True
    now: Callable[[], tuple[int, int]] | None = None


@dataclass(frozen=True)
class Layout:
    """How members and steps run together; no number but rounding depends on it.

    `members` of a search are mapped, unrolled into one program or looped over; so are `steps` (scan, unroll, loop). `chunk`
    members are in flight (0: as many as the memory takes), over `devices` of this machine (0: all). `together` images of one
    size are searched together (0: small ones, where members are mapped).

    All of it keeps within the `memory`, or is refused (None: half of what an accelerator has free; on a CPU nothing is refused).
    For that `micro` fit cases go through the network at once (0: chosen), and blocks are recomputed in the backward pass where
    that is needed, always or never.
    """

    members: Literal["auto", "vmap", "unroll", "loop"] = "auto"
    steps: Literal["auto", "scan", "unroll", "loop"] = "auto"
    chunk: int = 0
    together: int = 0
    devices: int = 0
    memory: Budget | None = None
    micro: int = 0
    recompute: Literal["auto", "always", "never"] = "auto"


AUTO = Layout()


def choose_layout(layout: Layout, *, members: int, operations: float = 0, backend: str | None = None) -> Layout:
    """The layout for so many members on a backend, where a pass over the image takes so many operations.

    Fields that are not `auto` or 0 are kept. A chunk of 0 is left where members are mapped: it is found when the step is
    compiled.
    """
    cpu = (backend or jax.default_backend()) == "cpu"
    together: Literal["vmap", "unroll", "loop"] = layout.members if layout.members != "auto" else ("loop" if cpu else "vmap")
    steps: Literal["scan", "unroll", "loop"] = layout.steps if layout.steps != "auto" else ("loop" if cpu else "scan")
    devices = min((layout.devices or jax.local_device_count()) if together == "vmap" else 1, members)
    # two in flight: on few cores small convolutions leave room for another's small operations, and for Python; large ones fill
    # the cores by themselves, and two would only take twice the memory
    chunk = layout.chunk or (0 if together == "vmap" else 2 if operations < FILLS else 1)
    return replace(layout, members=together, steps=steps, chunk=min(chunk, members), devices=devices)


def choose_group(layout: Layout, *, members: int, pixels: int, backend: str | None = None) -> int:
    """How many images of so many pixels are searched together: small ones fill an accelerator only in company."""
    if layout.together:
        return layout.together
    if choose_layout(layout, members=members, backend=backend).members != "vmap":
        return 1
    return max(1, min(MOST_IMAGES, GROUPED // (members * pixels)))


def budget_of(layout: Layout) -> Budget | None:
    """The memory that a search keeps to: the layout's, or half of what an accelerator has free."""
    if layout.memory is not None:
        return layout.memory
    device = jax.local_devices()[0]
    statistics = None if device.platform == "cpu" else device.memory_stats()
    if not statistics or "bytes_limit" not in statistics:
        return None
    held = statistics.get("bytes_in_use", 0)
    return Budget(held + (statistics["bytes_limit"] - held) // 2, held, asked=False)


def backend_name() -> str:
    """The backend that a search runs on, with its device kind: for reports."""
    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind})" if device.platform != "cpu" else "cpu"
