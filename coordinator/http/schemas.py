"""Bases and fields of the shapes on the wire. Bodies are strict, views promise every field they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate

from coordinator.domains.identity.space_words import TwoSpaces, take_space
from shared.clock import parse_rfc3339, rfc3339
from shared.ids import is_id


class Body(Schema):
    """What a client sends. Unknown fields are refused in v1 and ignored in v0."""

    class Meta:
        unknown = RAISE


class InSpace(Body):
    """What may name its space, as `namespace`, `workspace`, `workspace_id`, `workspace_name` or `organization` too.

    The edge takes it for the space of the whole request.
    """

    space = fields.String(metadata={"description": "the space it is for; the header X-Space says the same"})

    @pre_load
    def _one_space(self, data: Any, **_: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        try:
            return take_space(data)
        except TwoSpaces as error:
            raise ValidationError({"space": [f"two spaces are named: {error}"]}) from None


class Query(Schema):
    """Query parameters; ones that nobody knows are ignored, as old clients rely on it."""

    class Meta:
        unknown = EXCLUDE


class View(Schema):
    """What we answer. Each field is always there unless its metadata say `{"optional": True}`."""

    class Meta:
        unknown = EXCLUDE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        if not field_obj.metadata.get("optional"):
            field_obj.required = True


class Moment(fields.Field[datetime]):
    """An RFC 3339 time with a zone."""

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_rfc3339(value)
        except (TypeError, ValueError, OverflowError):
            raise ValidationError("must be an RFC 3339 time with a zone, for example 2026-01-31T12:00:00Z") from None


class IdField(fields.String):
    """An id, lower-cased."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs).lower()
        if not is_id(text):
            raise ValidationError("must be a UUID")
        return text


def name_field(**options: Any) -> fields.String:
    """A name: 1 to 255 characters, something other than blanks."""
    rules = [validate.Length(1, 255), validate.Regexp(r"^\S(.*\S)?$", error="must not begin or end with blanks")]
    return fields.String(validate=rules, **options)


class Anything(fields.Raw):
    """Any JSON value."""


def lenient(schema: Schema) -> Schema:
    """This schema instance, from now on ignoring unknown fields, in nested objects too."""
    _loosen(schema, above=())
    return schema


def _loosen(schema: Schema, *, above: tuple[type[Schema], ...]) -> None:
    schema.unknown = EXCLUDE
    for each in schema.load_fields.values():
        _loosen_field(each, above=(*above, type(schema)))


def _loosen_field(each: fields.Field[Any], *, above: tuple[type[Schema], ...]) -> None:
    if isinstance(each, fields.Nested):
        each.unknown = EXCLUDE
        # A schema that nests itself would be walked without end.
        if type(each.schema) not in above:
            _loosen(each.schema, above=above)
    elif isinstance(each, fields.List):
        _loosen_field(each.inner, above=above)
    elif isinstance(each, fields.Dict) and each.value_field is not None:
        _loosen_field(each.value_field, above=above)


def secret_names(shape: Any) -> frozenset[str]:
    """The fields that a shape marks with `metadata={"secret": True}`, at any depth: the audit trail masks them."""
    if shape is None:
        return frozenset()
    return frozenset(_secrets(shape() if isinstance(shape, type) else shape, above=()))


def _secrets(schema: Schema, *, above: tuple[type[Schema], ...]) -> Iterator[str]:
    for name, each in schema.fields.items():
        if each.metadata.get("secret"):
            yield from {name, each.data_key or name}
        inner = each.inner if isinstance(each, fields.List) else each
        # A schema that nests itself would be walked without end.
        if isinstance(inner, fields.Nested) and type(inner.schema) not in above:
            yield from _secrets(inner.schema, above=(*above, type(schema)))


def faults(messages: Any, path: str = "") -> list[dict[str, str]]:
    """Marshmallow's tree of messages as a flat list of `{field, reason}` with paths like `flow.nodes[0].model`."""
    if isinstance(messages, Mapping):
        return [fault for key, each in messages.items() for fault in faults(each, _below(path, key))]
    if isinstance(messages, list):
        return [fault for each in messages for fault in faults(each, path)]
    return [{"field": path, "reason": str(messages)}]


def _below(path: str, key: Any) -> str:
    if key == "_schema":
        return path
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)


__all__ = [
    "Anything",
    "Body",
    "IdField",
    "InSpace",
    "Moment",
    "Query",
    "ValidationError",
    "View",
    "faults",
    "fields",
    "lenient",
    "name_field",
    "secret_names",
    "validate",
]
