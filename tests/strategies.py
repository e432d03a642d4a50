"""Hypothesis strategies for the contract's messages, read off their types."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from vagus_protocol.messages import Payload

P = TypeVar("P", bound=Payload)

names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True).filter(lambda name: "--" not in name)
# JSON has no lone surrogates; msgspec refuses to encode them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def messages(kind: type[P]) -> st.SearchStrategy[P]:
    """Any valid message of this kind."""
    return _of(inspect.type_info(kind))


def _of(info: Any) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType():
            return _struct(info)
        case inspect.StrType(pattern=str()):
            return names
        case inspect.StrType():
            return texts
        case inspect.IntType():
            return st.integers(info.ge, info.le)
        case inspect.FloatType():
            return st.floats(info.ge, info.le, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(info.values)
        case inspect.EnumType():
            return st.sampled_from(list(info.cls))
        case inspect.VarTupleType():
            return st.lists(_of(info.item_type), max_size=2).map(tuple)
        case inspect.DictType():
            return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=2)
        case inspect.UnionType():
            return st.one_of([_of(part) for part in info.types])
    raise TypeError(f"no strategy for {info}")


def _struct(info: inspect.StructType) -> st.SearchStrategy[Any]:
    required = {field.name: _of(field.type) for field in info.fields if field.required}
    optional = {field.name: _of(field.type) for field in info.fields if not field.required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: info.cls(**values))


def as_json(message: msgspec.Struct) -> dict[str, Any]:
    """The message as the JSON object that travels."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(message))
    return decoded
