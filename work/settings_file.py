"""Settings files: --config FILE, TOML with the names of the options.

A companion of sort_faces.py, loaded where a settings file is named. What stands at the top of the
file goes for every command that has such an option, a table goes for one command or one step:

    model = "dlib"

    [refine]
    min-faces = 8

    [video.run]
    max-yaw = 25

The command line counts more than the file, the file more than the defaults.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import sort_faces as sf

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_SETTINGS = ("help", "version", "config")


def apply(parser: sf.OneLineParser, path: Path) -> dict[str, Any]:
    """Make what a settings file says the defaults of a command line and all its commands.

    Returns {"model": "dlib", "refine.min-faces": 8} to show. Raises SortFacesError for a file
    that cannot be read, and for every name and value in it that no option has.
    """
    try:
        table = tomllib.loads(path.expanduser().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise sf.SortFacesError(f"{path}: {error.strerror}; name a settings file") from None
    except (ValueError, RecursionError) as error:  # not TOML, or not even UTF-8
        raise sf.SortFacesError(f"{path}: is no TOML: {sf.one_line(error)}") from None
    return apply_table(parser, table, f"{path}: ")


def apply_table(parser: sf.OneLineParser, table: dict[str, Any], where: str) -> dict[str, Any]:
    """The same for one table; what the tables in it say counts more than what it says itself."""
    family = list(below(parser))
    known = [name for p in family for name in settable(p)]
    said: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("_", "-")
        if isinstance(value, dict):
            continue
        if name not in known:
            meant = sf.did_you_mean(name, [*known, *parser.steps])
            raise sf.SortFacesError(f"{where}{key}: no such option{meant}")
        for p in family:
            if name in settable(p):
                option = settable(p)[name]
                p.set_defaults(**{option.dest: setting(option, value, f"{where}{key}")})
        said[name] = value
    for key, value in table.items():
        if isinstance(value, dict):
            if key not in parser.steps:
                meant = sf.did_you_mean(key, parser.steps)
                raise sf.SortFacesError(f"{where}[{key}]: no such command{meant}")
            inner = apply_table(parser.steps[key], value, f"{where}[{key}] ")
            said |= {f"{key}.{name}": value for name, value in inner.items()}
    return said


def below(parser: sf.OneLineParser) -> list[sf.OneLineParser]:
    """A parser and those of all commands and steps below it."""
    return [parser, *(p for step in parser.steps.values() for p in below(step))]


def settable(parser: sf.OneLineParser) -> dict[str, argparse.Action]:
    """{name: option} of what a settings file may say of one command."""
    options = parser.options().items()
    return {flag[2:]: option for flag, option in options if option.dest not in NOT_SETTINGS}


def setting(option: argparse.Action, value: Any, where: str) -> Any:
    """A value as the command line would have given it."""
    if option.nargs == 0:
        if not isinstance(value, bool):
            raise sf.SortFacesError(f"{where}: {value!r} is neither true nor false")
        return value
    if isinstance(option, sf.Repeated):
        return [one_setting(option, part, where) for part in as_list(value)]
    return one_setting(option, value, where)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def one_setting(option: argparse.Action, value: Any, where: str) -> Any:
    """One number or text, checked and converted by its option."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise sf.SortFacesError(f"{where}: {value!r} is neither a number nor a text")
    try:
        made = option.type(str(value)) if option.type is not None else value
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise sf.SortFacesError(f"{where}: {error}") from None
    if option.choices is not None and made not in option.choices:
        choices = f" of {', '.join(option.choices)}"
        meant = sf.did_you_mean(str(value), option.choices) or choices
        raise sf.SortFacesError(f"{where}: {value!r} is no choice{meant}")
    return made.expanduser() if isinstance(made, Path) else made
