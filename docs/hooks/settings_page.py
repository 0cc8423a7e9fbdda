"""The page of params.yaml, and tables of settings, out of the pydantic models themselves."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from zspl.settings import Settings

Schema = Mapping[str, Any]

_WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "{} or more of them",
    "pattern": "of the form `{}`",
}
_PLUGINS = {
    "prepare.dataset": "datasets",
    "propose": "proposals",
    "embed": "features",
    "embed_segments": "features",
    "label.variants.NAME.labeler": "labeling",
    "train.methods": "methods",
    "train.models.NAME.backbone": "models.backbones",
    "train.models.NAME.head": "models.heads",
}
"""Key -> the plugins whose settings stand below it."""

_INTRO = """\
# params.yaml

Every key of a benchmark's params.yaml, as the code declares it. All keys are needed and none has a
default: a value that the file does not hold is one whose change DVC cannot see. An unknown key, a
missing one or a wrong value is one line that names it, before anything runs. `NAME` is a name you
choose. The settings of plugins do have defaults; they stand on the page [Plugins](plugins.md).

Environment variables hold only what changes the wall clock or the place: `ZSPL_DEVICE` (`cpu`,
`cuda`, `cuda:1`), `ZSPL_WORKERS` (loader processes), `ZSPL_PARALLEL` (stage instances at a time
under Prefect), `ZSPL_WEIGHTS` (folder of checkpoints), `MLFLOW_TRACKING_URI`.
"""


def markdown() -> str:
    """Return the page of params.yaml."""
    schema = Settings.model_json_schema()
    parts = [_INTRO, "## Top level", ""]
    alone = {k: v for k, v in schema["properties"].items() if not _section(v, schema)}
    parts += _table(_rows({"properties": alone}, schema, ""))
    for key, value in schema["properties"].items():
        if section := _section(value, schema):
            parts += ["", f"## {key}", "", section.get("description", ""), ""]
            parts += _table(_rows(section, schema, f"{key}."))
    return "\n".join(parts)


def table_of(model: type[BaseModel]) -> list[str]:
    """Return the settings of a plugin as a Markdown table, defaults included."""
    schema = model.model_json_schema()
    return _table(_rows(schema, schema, ""), defaults=True)


Row = tuple[str, str, str, str]


def _rows(section: Schema, schema: Schema, prefix: str) -> Iterator[Row]:
    for name, value in section.get("properties", {}).items():
        key = f"{prefix}{name}"
        told = value.get("description", "")
        if key in _PLUGINS:
            page = f"[{_PLUGINS[key]}](plugins.md#{_PLUGINS[key].replace('.', '-')})"
            named = "$ref" in value or "allOf" in value
            kind = f"`name` of one of {page}, and its settings" if named else f"by name of {page}"
            yield key, kind, told, ""
        elif (inner := _inner(value, schema)) is not None:
            yield key, "by a name of yours", inner.get("description", told), ""
            yield from _rows(inner, schema, f"{key}.NAME.")
        else:
            shown = value.get("default", "...")
            default = "needed" if name in section.get("required", []) else f"`{_yaml(shown)}`"
            yield key, _kind(value, schema), told, default


def _table(rows: Iterator[Row], *, defaults: bool = False) -> list[str]:
    head = ["key", "values", "default", "meaning"] if defaults else ["key", "values", "meaning"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for key, kind, told, default in rows:
        cells = [f"`{key}`", kind, *([default] if defaults else []), _escaped(told)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _section(value: Schema, schema: Schema) -> Schema | None:
    """Return what a reference to another section points at."""
    name = value.get("$ref", "").removeprefix("#/$defs/")
    return schema["$defs"][name] if name else None


def _inner(value: Schema, schema: Schema) -> Schema | None:
    """Return the section that each value of a mapping holds."""
    held = [*value.get("patternProperties", {}).values(), value.get("additionalProperties")]
    return next((s for h in held if isinstance(h, dict) and (s := _section(h, schema))), None)


def _kind(value: Schema, schema: Schema) -> str:
    """Say in words which values a key may have."""
    if section := _section(value, schema):
        return _kind(section, schema)
    if options := value.get("anyOf", value.get("oneOf")):
        kinds = [_kind(option, schema) for option in options]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in value:
        return ", ".join(f"`{_yaml(word)}`" for word in value["enum"])
    if "const" in value:
        return f"`{_yaml(value['const'])}`"
    return ", ".join([_simple(value, schema), *_limits(value)])


def _simple(value: Schema, schema: Schema) -> str:
    kind = value.get("type")
    if kind == "null":
        return "null"
    if kind == "array" and "prefixItems" in value:
        return f"{len(value['prefixItems'])} of: {_kind(value['prefixItems'][0], schema)}"
    if kind == "array":
        return f"list of: {_kind(value['items'], schema)}" if value.get("items") else "list"
    if kind == "object":
        inner = (f"{key}: {_kind(v, schema)}" for key, v in value.get("properties", {}).items())
        return f"{{{', '.join(inner)}}}" if "properties" in value else "keys and values"
    return "path" if value.get("format") == "path" else _WORDS.get(str(kind), "any")


def _limits(value: Schema) -> Iterator[str]:
    for bound, words in _BOUNDS.items():
        fixed = bound == "minItems" and "prefixItems" in value
        if bound in value and not fixed:
            yield words.format(str(value[bound]).replace("|", "\\|"))


def _yaml(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
