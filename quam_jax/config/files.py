"""Settings by name: replaced one by one, and read from and written to YAML and JSON."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from .schema import PRESETS, Config
from .settings import require


def fields_of(config: Config) -> dict[str, tuple[str, dataclasses.Field]]:
    """Every leaf field by its unique name, with the section that holds it ('' for the top level)."""
    leaves: dict[str, tuple[str, dataclasses.Field]] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            leaves |= {leaf.name: (field.name, leaf) for leaf in dataclasses.fields(value)}
        else:
            leaves[field.name] = ("", field)
    return leaves


def change(config: Config, values: Mapping[str, Any]) -> Config:
    """Replace leaf fields by name; ValueError on an unknown name or a value of the wrong kind."""
    leaves = fields_of(config)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name not in leaves:
            raise ValueError(f"{name}: unknown setting; expected one of {', '.join(sorted(leaves))}")
        section, field = leaves[name]
        sections.setdefault(section, {})[name] = _converted(name, value, field.type)
    top = sections.pop("", {})
    parts = {s: dataclasses.replace(getattr(config, s), **v) for s, v in sections.items()}
    return dataclasses.replace(config, **parts, **top)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, ready for JSON or YAML."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def from_dict(values: Mapping[str, Any], *, where: str = "config", base: Config | None = None) -> Config:
    """Settings from nested or flat values on top of `base`; `preset: published` chooses another start."""
    values = dict(values)
    preset = values.pop("preset", None)
    if preset is not None:
        if preset not in PRESETS:
            raise ValueError(f"{where}: preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        base = PRESETS[preset]()
    config = base or Config()
    sections = {f.name for f in dataclasses.fields(config) if dataclasses.is_dataclass(getattr(config, f.name))}
    homes = {leaf: section for leaf, (section, _) in fields_of(config).items()}
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name not in sections:
            flat[name] = value
        elif isinstance(value, Mapping):
            strange = next((leaf for leaf in sorted(value, key=str) if homes.get(leaf) != name), None)
            if strange is not None:
                elsewhere = f"it belongs to {homes[strange]}" if homes.get(strange) else ""
                known = ", ".join(f.name for f in dataclasses.fields(getattr(config, name)))
                raise ValueError(f"{where}: {name}.{strange}: unknown setting; {elsewhere or f'expected one of {known}'}")
            flat |= value
        else:
            raise ValueError(f"{where}: {name}: expected a section of settings, got {value!r}")
    try:
        return change(config, flat)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def load_config(path: str | Path, *, base: Config | None = None) -> Config:
    """Read a YAML file of settings; ValueError naming the file if it cannot be read or holds something unknown."""
    try:
        text = Path(path).read_text()
        values = yaml.safe_load(text)
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise yaml.YAMLError("references (*name), which a small file could blow up with")
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: expected a YAML file of settings, got {str(error).splitlines()[0]}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    return from_dict(values, where=str(path), base=base)


def dump_config(config: Config) -> str:
    """The settings as YAML; load_config gives the same settings back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def _converted(name: str, value: Any, annotation: Any) -> Any:
    origin, options = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        require(value in options, name, "one of " + ", ".join(map(str, options)), value)
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        require(isinstance(items, list | tuple) and all(isinstance(i, str) for i in items), name, "a list of names", value)
        return tuple(i.strip() for i in items)
    if origin is types.UnionType:
        return None if value is None else _converted(name, value, options[0])
    if annotation is bool:
        require(isinstance(value, bool), name, "true or false", value)
        return value
    if annotation is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
            try:
                value = float(value)
            except ValueError:
                require(False, name, "a number", value)
        require(isinstance(value, int | float) and not isinstance(value, bool) and value == value, name, "a number", value)
        return float(value)
    if annotation is int:
        require(isinstance(value, int) and not isinstance(value, bool), name, "a whole number", value)
        return value
    require(isinstance(value, str), name, "text", value)
    return value
