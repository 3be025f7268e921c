"""Typed settings from a JSON file: unknown keys and wrong values are errors, all of them at once."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from .errors import ConfigError

_Config = TypeVar("_Config")


def read_config(kind: type[_Config], path: Path | None, overrides: Sequence[str] = ()) -> _Config:
    """Read settings.

    Args:
        kind: a dataclass; its fields are the keys.
        path: the JSON file, or None for overrides alone. A relative path in it is one of the caller's working folder.
        overrides: "key=value" each, the value as JSON or as plain text.

    Returns:
        The settings.

    Raises:
        ConfigError: if the file cannot be read, or holds mistakes.
    """
    return build_config(kind, read_record(path, overrides))


def read_record(path: Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read settings without checking them.

    Args:
        path: the JSON file, or None for overrides alone.
        overrides: "key=value" each, the value as JSON or as plain text.

    Returns:
        Key -> value.

    Raises:
        ConfigError: if the file is no JSON object, or an override has no value.
    """
    record = {} if path is None else _read(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override} has no value; write --set key=value.")
        record[key.strip()] = _parse(value)
    return record


def build_config(kind: type[_Config], record: Mapping[str, Any]) -> _Config:
    """Check a record against a dataclass and fill it in.

    Args:
        kind: a dataclass; its fields are the keys.
        record: the values.

    Returns:
        The settings.

    Raises:
        ConfigError: naming every mistake.
    """
    hints = typing.get_type_hints(kind)
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    mistakes = [
        f"There is no setting {key!r}; the settings are {', '.join(known)}." for key in record if key not in known
    ]
    for name, one in known.items():
        if name not in record:
            if one.default is MISSING and one.default_factory is MISSING:
                mistakes.append(f"The setting {name!r} is missing.")
        elif not _fits(record[name], hints[name]):
            mistakes.append(f"The setting {name!r} is {record[name]!r}; {_describe(hints[name])} is needed.")
    values = {}
    for name, value in record.items():
        try:
            values[name] = _convert(value, hints[name]) if name in known else None
        except ConfigError as error:
            mistakes.append(f"In {name}: {error}")
    if mistakes:
        raise ConfigError(*mistakes)
    return kind(**values)


def too_low(config: object, lowest: Mapping[str, float]) -> list[str]:
    """Say of each setting that is too low what it is and what it must be.

    Args:
        config: the settings.
        lowest: name -> least value.

    Returns:
        One sentence a mistake, in this order.
    """
    return [
        f"{name} is {getattr(config, name)}; it must be at least {least}."
        for name, least in lowest.items()
        if getattr(config, name) < least
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The settings {path} cannot be read ({error.strerror or error}). Check the name.") from None
    except ValueError as error:
        raise ConfigError(f"The settings {path} are not JSON ({error}). Correct that place.") from None
    if not isinstance(record, dict):
        raise ConfigError(f"The settings {path} are not a JSON object; write {{...}} with one entry a setting.")
    return record


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is dict:
        key, item = get_args(hint)
        return isinstance(value, dict) and all(_fits(k, key) and _fits(v, item) for k, v in value.items())
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(one, get_args(hint)[0]) for one in value)
    if is_dataclass(hint):
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (type(None), None):
        return value is None
    return isinstance(value, hint)


def _convert(value: Any, hint: Any) -> Any:
    """Make floats of whole numbers, and records of a dataclass; what does not fit stays, as it is a mistake already."""
    if get_origin(hint) is list and isinstance(value, list):
        return [_convert(one, get_args(hint)[0]) for one in value]
    if is_dataclass(hint) and isinstance(value, dict):
        return build_config(cast("type[Any]", hint), value)
    return float(value) if hint is float and isinstance(value, int) else value


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_describe(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    if get_origin(hint) is dict:
        return "an object"
    if get_origin(hint) is list:
        return f"a list, each {_describe(get_args(hint)[0])},"
    if is_dataclass(hint):
        return "an object of settings"
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))
