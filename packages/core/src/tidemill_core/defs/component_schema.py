"""The JSON schema of a component's attributes, where a template may stand for any value."""

from collections.abc import Mapping
from typing import Any

TEMPLATE: Mapping[str, Any] = {"type": "string", "pattern": r"\{\{.*\}\}", "title": "Template"}
"""What `dg check yaml` accepts instead of a value: ``{{ env.PORT }}``."""

_BOUNDS = {"pattern", "format", "minLength", "maxLength", "enum", "const", "writeOnly"}


def with_templates(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Let a template stand for every property and list entry of a model's schema."""
    found = dict(schema)
    if "$defs" in found:
        found["$defs"] = {name: with_templates(inner) for name, inner in found["$defs"].items()}
    if "properties" in found:
        found["properties"] = {name: _or_template(inner) for name, inner in found["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), Mapping):
            found[key] = _or_template(found[key])
    return found


def _or_template(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "string" and not _BOUNDS & schema.keys():
        return dict(schema)
    about = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    return {**about, "anyOf": [with_templates(schema), dict(TEMPLATE)]}
