"""How a setting is declared, read from an environment and shown: the fields of a frozen dataclass are its settings.

Used by `config`, which has the table. Loads neither gevent nor prometheus. Must not know any setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any

from relay.kit.errors import ConfigError
from relay.kit.values import shown


def setting(
    env: str,
    default: str,
    parse: Callable[[str], Any],
    help_text: str,
    *,
    also: tuple[str, ...] = (),
    over: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field. `also` and `over` are names that are read too: when `env` is not set, and before it."""
    names = (*over, env, *also)
    metadata = {"env": env, "names": names, "text": default, "parse": parse, "help": help_text, "secret": secret}
    return field(default=parse(default), metadata=metadata)


def values_in(environment: Mapping[str, str], table: type) -> dict[str, Any]:
    """The values of the fields of `table` that `environment` has; an empty one counts as unset.

    Raises ConfigError naming the variable when a value cannot be read.
    """
    values = {}
    for item in fields(table):
        for name in item.metadata["names"]:
            if environment.get(name):
                values[item.name] = _parsed(item, name, environment[name])
                break
    return values


def redacted(settings: Any) -> dict[str, str]:
    """Every setting as text, secrets replaced."""
    return {
        item.metadata["env"]: "[redacted]" if item.metadata["secret"] else shown(getattr(settings, item.name))
        for item in fields(settings)
    }


def lines_of(table: type) -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting, in order."""
    assert all(item.default is not MISSING for item in fields(table))
    return [(item.metadata["env"], item.metadata["text"], item.metadata["help"]) for item in fields(table)]


def names_in(table: type) -> set[str]:
    """Every name that is read."""
    return {name for item in fields(table) for name in item.metadata["names"]}


def _parsed(item: Field[Any], name: str, text: str) -> Any:
    try:
        return item.metadata["parse"](text)
    except ValueError as error:
        said = "[redacted]" if item.metadata["secret"] else repr(text)
        raise ConfigError(f"{name}={said}: {error}") from None
