"""What commands share: options made from settings, the compilation cache, progress bars."""

import dataclasses
import functools
import json
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from ..config import PRESETS, Config, change, fields_of, load_config
from ..config.effects import EFFECTS
from ..process import cache_folder as cache_folder
from ..process import kept_file
from ..process import start_jax as start_process

PATH = click.Path(path_type=Path)


def figures_file() -> Path:
    """Where it is kept how long cases took on this machine; JAX_COMPILATION_CACHE_DIR wins."""
    return kept_file("figures.json")


def start_jax() -> None:
    """Import JAX with a persistent compilation cache, in a process that keeps its memory and remembers how it runs fastest."""
    start_process()
    from ..core.compilation import keep_choices
    from ..data.choices import Choices

    keep_choices(Choices(kept_file("choices.json")))


def option_of(field: dataclasses.Field, *, show: str = "") -> Callable[[Any], Any]:
    """A click option for one field of a settings dataclass; without the option the field is left as it is."""
    name = "--" + field.name.replace("_", "-")
    text = field.metadata.get("help", "")
    text += (f"; {EFFECTS[field.name]}" if field.name in EFFECTS else "") + (f" [{show}]" if show else "")
    if field.type is bool:
        return click.option(f"{name}/--no-{name[2:]}", field.name, default=None, help=text)
    kinds: Mapping[Any, Any] = {int: click.INT, float: click.FLOAT, str: click.STRING}
    listed = typing.get_args(field.type) if typing.get_origin(field.type) is typing.Literal else ()
    options = field.metadata.get("choices") or listed
    kind = click.Choice(options) if options else kinds.get(field.type)
    return click.option(name, field.name, type=kind or click.STRING, default=None, help=text)


def config_options(command: Callable[..., Any] | None = None, *, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Add --config, --preset and every field of Config but those in `without` as an option; the command receives `config`."""
    if command is None:
        return functools.partial(config_options, without=without)
    leaves = {name: leaf for name, leaf in fields_of(Config()).items() if name not in without}

    def wrapped(*args: Any, config_file: Path | None, preset: str, **options: Any) -> Any:
        config = PRESETS[preset]()
        if config_file is not None:
            config = load_config(config_file, base=config)
        given = {name: options.pop(name) for name in leaves}
        config = change(config, {n: v for n, v in given.items() if v is not None})
        return command(*args, config=config, **options)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for _, (section, field) in reversed(leaves.items()):
        default = getattr(getattr(Config(), section) if section else Config(), field.name)
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        wrapped = option_of(field, show=shown)(wrapped)
    wrapped = click.option("--config", "config_file", type=PATH, help="YAML file of settings; options win over it.")(wrapped)
    return click.option(
        "--preset", type=click.Choice(list(PRESETS)), default="default", show_default=True, help="Settings to start from."
    )(wrapped)


def parse_json(name: str, text: str | None) -> dict[str, Any] | None:
    """The JSON mapping an option was given, None without the option; ValueError for anything else."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected JSON, got {text!r} ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON mapping, got {text!r}")
    return value


def names_of(text: str | None) -> tuple[str, ...]:
    """The names of a list with commas, none without a list."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


@contextmanager
def progress_bar(what: str, *, quiet: bool, listen: bool = True, words: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """How far one list is; yields `update(name, done, total)`, to be called when an entry has ended."""
    with progress_bars(quiet=quiet, listen=listen, words={what: words} if words else {}) as update:
        yield functools.partial(update, what)


@contextmanager
def progress_bars(
    *, quiet: bool, listen: bool = True, words: Mapping[str, str] | None = None
) -> Iterator[Callable[[str, str, int, int], None]]:
    """How far lists are, one after the other: a bar on a terminal, lines elsewhere; yields `update(list, name, done, total)`.

    A list is known from its first call on, which has no `name` where none of its entries has ended; of some `words` say
    what these are, in a line of its own. What computations tell of
    themselves inside is shown too, unless `listen` is False, which spares commands without any the import of JAX.
    """
    if quiet:
        yield lambda stage, name, done, total: None
        return
    from .display import Bars, Display, Lines, rich_progress

    with ExitStack() as stack:
        view: Bars | Lines = Lines(functools.partial(click.echo, err=True))
        if sys.stderr.isatty():
            view = Bars(stack.enter_context(rich_progress()))
        display = Display(view, words=words)
        if listen:
            from ..core.progress import listening
            from .phases import Board

            stack.enter_context(listening(Board(display).hear))
        watch = threading.Thread(target=display.watch, daemon=True, name="display")
        watch.start()
        try:
            yield display.update
        finally:
            display.close()
            watch.join()


def say(context: click.Context, text: str, *, verbose_only: bool = False) -> None:
    """Print what is going on, unless --quiet; some of it only with --verbose."""
    flags = context.obj or {}
    if not flags.get("quiet") and (flags.get("verbose") or not verbose_only):
        click.echo(text, err=True)
