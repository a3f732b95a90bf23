"""Strict loading of nested frozen dataclasses from plain data (YAML, JSON, command line).

Every fault is collected and reported at once, each with its field, the nearest valid name
where a name is wrong, and the mend. Nothing is coerced silently, with two exceptions that
YAML 1.1 forces on us: `4e-4` arrives as a string and `12.5e9` as a float, so a float field
takes a numeric string and an int field takes an integral float.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, cast

from snowcoder_jax.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: where, what, and how to mend it."""

    field: str
    problem: str
    mend: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}. {self.mend}"


def as_fault(error: InputError, field: str | None = None, mend: str = "Mend it.") -> Fault:
    """By its parts, an error of the form "field: problem. Mend.".

    Args:
      field: what is at fault, where the error does not begin with it but with a file.
      mend: where the error says none.
    """
    told = str(error)
    if field is None:
        field, _, told = told.partition(": ")
    told = told.removeprefix(f"{field}: ")
    problem, _, own = told.rpartition(". ")
    return Fault(field, problem, own) if problem else Fault(field, told.rstrip("."), mend)


def nearest(name: str, valid: Sequence[str]) -> str:
    """A mend that names the closest valid spelling, or all of them where none is close."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Valid: {', '.join(valid)}."


def load(cls: type[T], data: object, faults: list[Fault], at: str = "") -> T | None:
    """Build `cls` (a dataclass) from plain data; append what is wrong to `faults`.

    Returns None where anything below `at` was wrong.
    """
    return cast("T | None", _value(cls, data, faults, at))


def _value(annotation: Any, data: object, faults: list[Fault], at: str) -> Any:
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if annotation is Any or annotation is object:
        return data
    if dataclasses.is_dataclass(annotation):
        return _dataclass(cast(type, annotation), data, faults, at)
    if origin in (Union, types.UnionType):
        return _union(args, data, faults, at)
    if origin is Literal:
        if data in args:
            return data
        mend = nearest(str(data), [str(a) for a in args])
        return _fault(faults, at, f"`{data}` is not one of its values", mend)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):
            return _fault(faults, at, f"a list is wanted, not `{data}`", "Write it as a YAML list.")
        items = [_value(args[0], x, faults, _item_path(at, i, x)) for i, x in enumerate(data)]
        return tuple(items)
    if origin is dict:
        if not isinstance(data, Mapping):
            return _fault(faults, at, f"a mapping is wanted, not `{data}`", "Write `key: value`.")
        return {str(k): _value(args[1], v, faults, f"{at}.{k}") for k, v in data.items()}
    return _scalar(annotation, data, faults, at)


def _item_path(at: str, index: int, item: object) -> str:
    # Items that have a name are addressed by it, as on the command line.
    if isinstance(item, Mapping) and isinstance(item.get("name"), str):
        return f"{at}.{item['name']}"
    return f"{at}[{index}]"


def _fault(faults: list[Fault], at: str, problem: str, mend: str) -> None:
    faults.append(Fault(at or "recipe", problem, mend))
    return None


def _scalar(annotation: Any, data: object, faults: list[Fault], at: str) -> Any:
    if annotation is bool and isinstance(data, bool):
        return data
    if annotation is str and isinstance(data, str):
        return data
    is_number = isinstance(data, (int, float)) and not isinstance(data, bool)
    is_whole = isinstance(data, int) or (isinstance(data, float) and data.is_integer())
    if annotation is int and is_number and is_whole:
        return int(cast(float, data))
    if annotation is float and (is_number or isinstance(data, str)):
        try:
            return float(cast(Any, data))
        except (ValueError, OverflowError):
            pass
    if annotation is int and isinstance(data, str):
        try:
            value = float(data.replace("_", ""))
            if value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            pass
    wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return _fault(faults, at, f"{wanted[annotation]} is wanted, not `{data}`", "Change the value.")


def _union(args: tuple[Any, ...], data: object, faults: list[Fault], at: str) -> Any:
    members = [a for a in args if a is not type(None)]
    if data is None and len(members) < len(args):
        return None
    if len(members) == 1:
        return _value(members[0], data, faults, at)
    # Several dataclasses: told apart by their `kind`.
    kinds = {typing.get_args(typing.get_type_hints(m)["kind"])[0]: m for m in members}
    if not isinstance(data, Mapping):
        return _fault(faults, at, f"a mapping is wanted, not `{data}`", "Write `kind: ...` in it.")
    kind = data.get("kind")
    if kind not in kinds:
        mend = nearest(str(kind), list(kinds))
        return _fault(faults, f"{at}.kind", f"`{kind}` is unknown", mend)
    return _value(kinds[kind], data, faults, at)


def _dataclass(cls: type, data: object, faults: list[Fault], at: str) -> Any:
    if not isinstance(data, Mapping):
        return _fault(faults, at, f"a mapping is wanted, not `{data}`", "Write `field: value`.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    num_faults = len(faults)
    values: dict[str, Any] = {}
    for key, item in data.items():
        path = f"{at}.{key}" if at else str(key)
        if key not in fields:
            _fault(faults, path, "no such field", nearest(str(key), list(fields)))
        else:
            values[key] = _value(hints[key], item, faults, path)
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in data and not has_default:
            path = f"{at}.{name}" if at else name
            _fault(faults, path, "is missing", "Add it.")
    if len(faults) > num_faults:
        return None
    return cls(**values)


def override(data: dict[str, Any], assignment: str, faults: list[Fault]) -> None:
    """Apply `a.b.c=value` (value in YAML) to plain data, in place.

    List items that carry a `name` are addressed by it: `phases.continued.tokens=1000`.
    """
    import yaml

    path, equals, text = assignment.partition("=")
    if not equals:
        faults.append(Fault(assignment, "is no override", "Write it as field.of.recipe=value."))
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        faults.append(Fault(path, f"`{text}` is not YAML", "Quote the value."))
        return
    node: Any = data
    keys = path.split(".")
    for depth, key in enumerate(keys[:-1]):
        child = _child(node, key)
        if child is None and isinstance(node, dict):
            child = node.setdefault(key, {})
        if child is None:
            names = [str(i.get("name")) for i in node if isinstance(i, dict)] if node else []
            here = ".".join(keys[: depth + 1])
            faults.append(Fault(here, "no such item", nearest(key, names)))
            return
        node = child
    if isinstance(node, list):
        index = next((i for i, x in enumerate(node) if x.get("name") == keys[-1]), None)
        if index is None:
            faults.append(Fault(path, "no such item", "Name an item of the list."))
            return
        node[index] = value
    elif isinstance(node, dict):
        node[keys[-1]] = value
    else:
        faults.append(Fault(path, "no such field", "It lies below a plain value."))


def _child(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return node.get(key)
    if isinstance(node, list):
        return next((x for x in node if isinstance(x, dict) and x.get("name") == key), None)
    return None


def to_plain(value: object) -> Any:
    """The inverse of `load`: nested dataclasses as dicts and lists, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(x) for x in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value
