"""One release's side of the wire, as a program that imports only that release's protocol:

    PYTHONPATH=<the directory that holds its vagus_protocol> python side.py <requests.json >answers.json

Requests are lists: ["samples"], ["read", kind, payload], ["sealed"], ["open", kind, payload], ["packets"],
["unpack", hex], ["topics"], ["parse", topic]. What is read is answered with every field, the defaults too; what is not,
as {"rejected": why}.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect

from vagus_protocol import messages, probe, signing, topics
from vagus_protocol.codec import Rejected, decode, encode

KINDS = ("Presence", "Report", "Event", "Desired", "Observed", "ControllerPresence", "Orders")
KEY = bytes(range(32))
FLEET, NODE = "home", "tokyo"


def samples() -> list[tuple[str, str]]:
    """Every message with every field, with none that may be absent, and then each other value of each field alone:
    every alternative, and what is at a bound."""
    return [
        (kind, encode(value).decode())
        for kind in KINDS
        for value in _values(inspect.type_info(getattr(messages, kind)))
    ]


def _values(info: Any) -> list[Any]:
    """Values of a type; the first is a plain one."""
    match info:
        case inspect.StructType():
            return _structs(info)
        case inspect.StrType(pattern=str()):
            return ["tokyo-1", "a" * 63]
        case inspect.StrType(max_length=most):
            return ["words ✓", "x" * (most or 2000)]
        case inspect.IntType(ge=least, le=most):
            return [1, *(bound for bound in (least, most) if bound is not None)]
        case inspect.FloatType(ge=least, le=most):
            return [0.5, *(float(bound) for bound in (least, most) if bound is not None)]
        case inspect.BoolType():
            return [True, False]
        case inspect.NoneType():
            return [None]
        case inspect.LiteralType(values=values):
            return list(values)
        case inspect.EnumType(cls=cls):
            return list(cls)
        case inspect.VarTupleType(item_type=item):
            plain, *others = _values(item)
            return [(plain, plain), (), *((other,) for other in others)]
        case inspect.DictType(key_type=keys, value_type=value):
            (key, *other_keys), (plain, *others) = _values(keys), _values(value)
            return [{key: plain}, {}, *({other: plain} for other in other_keys), *({key: other} for other in others)]
        case inspect.UnionType(types=types):
            return [value for part in types for value in _values(part)]
    raise TypeError(f"no samples of {info}: tell side.py what to take")


def _structs(info: inspect.StructType) -> list[Any]:
    values = {field.name: _values(field.type) for field in info.fields}
    bare = {field.name: values[field.name][0] for field in info.fields if field.required}
    full = {name: found[0] for name, found in values.items()}
    changed = [bare | {name: other} for name, found in values.items() for other in found[1:]]
    return [info.cls(**fields) for fields in (full, bare, *changed)]


def _first(kind: str, **changes: Any) -> Any:
    plain = _values(inspect.type_info(getattr(messages, kind)))[0]
    return msgspec.structs.replace(plain, fleet=FLEET, **changes)


def sealed() -> list[tuple[str, str]]:
    desired = signing.seal(_first("Desired", node=NODE), signing.node_key(KEY, NODE))
    orders = signing.seal_orders(_first("Orders"), signing.orders_key(KEY))
    return [("Desired", desired.decode()), ("Orders", orders.decode())]


def opened(kind: str, payload: bytes) -> Any:
    if kind == "Desired":
        return signing.open_sealed(payload, signing.node_key(KEY, NODE), FLEET, NODE)
    return signing.open_orders(payload, signing.orders_key(KEY), FLEET)


def packets() -> list[str]:
    """A probe and an echo: with a view of each state, and with none."""
    key, views = signing.probe_key(KEY), tuple((probe.path_hash(state), state) for state in messages.LinkState)
    made = []
    for kind in probe.Kind:
        for seen in (views, ()):
            names = (probe.name_hash("tokyo"), probe.name_hash("austin"), probe.name_hash("boot"))
            made.append(probe.pack(probe.Packet(kind, *names, 2**32 - 1, 2**64 - 1, 7, 8, 9, seen), key).hex())
    return made


def all_topics() -> list[str]:
    nodes = [topics.node(FLEET, NODE, leaf) for leaf in topics.NODE_LEAVES]
    subscribed = [*topics.controller_subscriptions(FLEET), *topics.agent_subscriptions(FLEET, NODE)]
    filters = [topic.replace("+", NODE) for topic, _ in subscribed]
    return sorted({*nodes, *filters, topics.controller(FLEET, "brain"), topics.orders(FLEET, "brain")})


def dump(value: Any) -> Any:
    """All of a value, defaults too, as JSON has it."""
    if isinstance(value, Rejected):
        return {"rejected": value.reason}
    if isinstance(value, msgspec.Struct):
        return {name: dump(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {key: dump(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {type(value).__name__: {name: dump(getattr(value, name)) for name in value._fields}}
    if isinstance(value, tuple | list):
        return [dump(each) for each in value]
    return value.value if isinstance(value, Enum) else value


def answer(request: list[str]) -> Any:
    match request:
        case ["samples"]:
            return samples()
        case ["read", kind, payload]:
            return dump(decode(payload.encode(), getattr(messages, kind)))
        case ["sealed"]:
            return sealed()
        case ["open", kind, payload]:
            return dump(opened(kind, payload.encode()))
        case ["packets"]:
            return packets()
        case ["unpack", packet]:
            return dump(probe.unpack(bytes.fromhex(packet), signing.probe_key(KEY)))
        case ["topics"]:
            return all_topics()
        case ["parse", topic]:
            return dump(topics.parse(topic))
    raise ValueError(request)


if __name__ == "__main__":
    json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
