"""What a process runs, as far as numbers depend on it, to be compared between machines before they share any work."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from ..version import __version__
from .dealing import Refused

NUMBERS = ("jax", "jaxlib", "numpy", "scipy")  # packages that numbers come from


def versions() -> dict[str, str]:
    """The package, with a digest of its files, and the packages that its numbers come from."""
    root = Path(__file__).parent.parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root)} {path.stat().st_size}".encode())
        total.update(path.read_bytes())
    found = {"quam_jax": f"{__version__} ({total.hexdigest()[:12]})"}
    return found | {name: importlib.metadata.version(name) for name in NUMBERS}


def require_same(theirs: Mapping[str, str], host: str) -> None:
    """Refused where a worker on `host` runs something else than this process."""
    for name, version in versions().items():
        if theirs.get(name) != version:
            raise Refused(
                f"{host}: expected {name} {version}, as where this command runs, got {theirs.get(name)}; "
                "install the same on all machines"
            )
