"""The OpenAPI document, as exact as msgspec is: Litestar's own keeps silent about fields that are forbidden, and about
the bounds of what may be left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

import msgspec
from litestar import Request
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.response import Response

_BOUNDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


class Document(JsonRenderPlugin):
    """At the path of the configuration itself; written once."""

    def __init__(self) -> None:
        super().__init__(path="/")
        self._text = b""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        if not self._text:
            routes = [
                (method.lower(), route.path_format, handler)
                for route in request.app.routes
                for handler in getattr(route, "route_handlers", ())
                for method in handler.http_methods
                if route.path_format in openapi_schema["paths"]
            ]
            self._text = msgspec.json.encode(complete(openapi_schema, routes))
        return self._text


def complete(document: dict[str, Any], routes: list[tuple[str, str, HTTPRouteHandler]]) -> dict[str, Any]:
    """`document`, with what the handlers of the routes (method, path) say of bodies, answers and parameters."""
    kinds: list[Any] = []
    for method, path, handler in routes:
        operation = document["paths"][path].get(method)
        if operation is None:
            continue
        kinds += _kinds(handler)
        takers: list[HTTPRouteHandler | Provide] = [handler, *handler.resolve_dependencies().values()]
        fields = {name: field for each in takers for name, field in each.parsed_fn_signature.parameters.items()}
        for parameter in operation.get("parameters", []):
            if parameter["name"] in fields:
                _bound(parameter["schema"], fields[parameter["name"]].kwarg_definition)
    schemas = document["components"]["schemas"]
    _, exact = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schemas.update({name: schema for name, schema in exact.items() if name in schemas})
    return document


def _kinds(handler: HTTPRouteHandler) -> Iterator[Any]:
    """The structs, or lists of them, that it takes and gives."""
    signature = handler.parsed_fn_signature
    found = [signature.return_type.annotation, *(spec.data_container for spec in (handler.responses or {}).values())]
    if "data" in signature.parameters:
        found.append(signature.parameters["data"].annotation)
    for kind in found:
        if isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Response):
            (kind,) = get_args(kind)
        inner = get_args(kind)[0] if get_origin(kind) in (list, tuple) else kind
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield kind


def _bound(schema: dict[str, Any], definition: Any) -> None:
    """Of a parameter that may be left out, the bounds belong to the choice that is no null."""
    choices = [each for each in schema.get("oneOf", []) if each != {"type": "null"}]
    where = choices[0] if len(choices) == 1 else schema
    for name, key in _BOUNDS.items():
        if getattr(definition, name, None) is not None:
            where[key] = getattr(definition, name)
