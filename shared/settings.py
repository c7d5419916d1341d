"""How both sides come by their settings: given values, then the environment, then files that the environment names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

PREFIX = "LONGSHORE_"

S = TypeVar("S", bound=BaseSettings)


class SettingsError(Exception):
    """A variable is wrong; the text names it and says what is wrong."""


def build(kind: type[S], given: Mapping[str, Any], environ: Mapping[str, str]) -> S:
    """Settings of this kind. A variable `…_FILE` names a file with the value, for secrets that are handed out so."""
    values = {name: value for name, value in given.items() if value is not None}
    for name in kind.model_fields:
        if name not in values and (path := environ.get(f"{PREFIX}{name.upper()}_FILE")):
            values[name] = _read(name, Path(path))
    try:
        return kind(**values)
    except ValidationError as error:
        raise SettingsError(_in_words(error)) from None


def _read(name: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{PREFIX}{name.upper()}_FILE: cannot read {path}: {error.strerror}") from None


def _in_words(error: ValidationError) -> str:
    faults = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors())
    return "; ".join(f"{PREFIX}{name.upper()}: {text.removeprefix('Value error, ')}" for name, text in faults)
