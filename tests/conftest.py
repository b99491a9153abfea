"""Options and fixtures of the whole suite: where given data lies, weight files, quick compilation and its cache, checked shapes.

Most of a test's time is the compiler's, so it is told not to optimise: three times less work, and the numbers that tests
compare stay within their tolerances. With `--long`, and in tests/test_demo.py, programs are compiled as users have them.

Every signature of the package is executed: types and shapes of arguments and results are checked at each call (jaxtyping with
beartype), and JAX adds no axis to an array by itself. Processes that tests start run unchecked.
"""

import gc
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "quam_jax" / "tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
if any(name.split(".")[0] == "quam_jax" for name in sys.modules):
    raise RuntimeError("tests: expected quam_jax not to be imported before its signatures are checked")
# a whole number is a number too (PEP 484), as mypy has it
jaxtyping.install_import_hook("quam_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

MOST = 3e9  # bytes
QUICK = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # a flag that a version does not know ends the process
    QUICK += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", default=str(ROOT / "tests" / "golden"), help="folder of golden numbers")
    parser.addoption("--shared", default=str(ROOT.parent / "shared"), help="folder with data, weights and goldens")
    parser.addoption("--long", action="store_true", help="run the tests marked long too")
    parser.addoption("--peers", action="store_true", help="run the tests that need the packages of the extra `peers` too")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything starts a backend; workers of pytest-xdist inherit the environment."""
    if not config.getoption("--long") and "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = " ".join(QUICK)


# files that take longest, by measurement: first, so that no worker has one of them left when the other has nothing to do
FIRST = (
    "run_faults", "networks", "docs", "memory", "volumes_memory", "windows", "recomputation", "views", "head", "volumes_planned",
    "case_assembly", "execution", "fitting", "wrap", "layers", "large_images", "case_views", "optimizers", "volumes_points",
)  # fmt: skip


def pytest_collection_finish() -> None:
    """What was collected stays to the end, and need not be looked through for garbage again and again."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))  # stable: files stay together and in order
    asked = config.getoption("-m")
    for marker, reason in (("long", "takes minutes"), ("peers", "needs an environment with the extra `peers`")):
        if config.getoption(f"--{marker}") or re.search(rf"\b{marker}\b", asked):
            continue
        for item in items:
            if marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}; run with --{marker}"))


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Path:
    """The folder of given data, or a skip where a machine does not have it."""
    folder = Path(pytestconfig.getoption("--shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of shared data at {folder} (--shared)")
    return folder


def held() -> int:
    """Bytes of memory of this process, where the system tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if sys.platform == "linux" else 0


@pytest.fixture(autouse=True, scope="module")
def _bounded_memory() -> Iterator[None]:
    """Compiled programs of the modules before are let go of where they have become many: all of them take some 8 GB a process.

    Freed pages go first: they are more than half, and while they count, the programs of every further module would be let go of.
    """
    yield
    if "jax" in sys.modules and held() > MOST:
        from quam_jax.process import trim

        trim()
        if held() > MOST:
            sys.modules["jax"].clear_caches()
            trim()


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """The tiny network is known by its name."""
    from tests.tiny import tiny_network  # only some tests need JAX

    with tiny_network():
        yield


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser that draws WebGL2 by software, or a skip where none is installed."""
    from tests.browser import CHROMIUM, DRIVER, Browser, start_driver

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver on the path")
    process, port = start_driver()
    try:
        made = Browser(process.pid, port, tmp_path_factory.mktemp("profile"), ["--enable-unsafe-swiftshader"])
        made.open("about:blank")
        made.log("performance")  # the browser's own start page
        yield made
        made.close()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def picture_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the report of four pictures and a failed case with a hostile name."""
    from quam_jax.report import write_report
    from tests.report_pages import NASTY, make_run

    names = ["alpha", "beta", "gamma 10", "gamma 9"]
    return write_report(make_run(tmp_path_factory.mktemp("pictures") / "out", names, failed={NASTY: "no " + NASTY})).as_uri()


@pytest.fixture(scope="module")
def volume_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of the report of one small volume."""
    from quam_jax.report import write_report
    from tests.report_pages import make_run

    return write_report(make_run(tmp_path_factory.mktemp("volumes") / "out", 1, space=(20, 24, 9))).as_uri()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Signatures unchecked: for what is said of arguments that an annotation rules out."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def torch() -> Any:
    """PyTorch, or a skip where it is not installed."""
    return pytest.importorskip("torch")


@pytest.fixture
def save(torch: Any, tmp_path: Path) -> Callable[..., Path]:
    """Save a weight file with PyTorch, return the path."""

    def save_as(value: Any, **options: Any) -> Path:
        path = tmp_path / "saved.pth"
        torch.save(value, path, **options)
        return path

    return save_as


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Any]:
    """Read a weight file of the given bytes."""
    from converters.readers import read_weights  # only the tests of weight files need it

    def read_bytes(content: bytes, **options: Any) -> Any:
        path = tmp_path / "file.pth"
        path.write_bytes(content)
        return read_weights(path, **options)

    return read_bytes
