# SPDX-License-Identifier: Apache-2.0
"""The rules of registered workflows: the definition is YAML without aliases, and gives name and description."""

from __future__ import annotations

import yaml

from ..refusal import Json, Record, Refusal, invalid
from .attributes import MAX_NAME
from .parameters import MAX_DEPTH, json_of
from .records import Context

#: Characters of a definition that is not JSON: reading YAML takes many times as long.
MAX_YAML = 1 << 20

_STANDARD_TAGS = "tag:yaml.org,2002:"
_FROM_DEFINITION = ("name", "description")


def check_workflow(context: Context, old: Record | None, new: Record) -> None:
    """Check a workflow that is about to be written; name and description follow the definition
    where they are not given, or were the old definition's."""
    del context
    if new["collection_uuid"] is not None:
        raise invalid("Collection uuid must be null")
    said = _names_in_definition(new["definition"])
    before = _names_in_definition(old["definition"]) if old else {}
    for name in _FROM_DEFINITION:
        if not new[name] or (old is not None and new[name] == old[name] == before.get(name)):
            new[name] = said.get(name)
    if len(str(new["name"] or "")) > MAX_NAME:
        raise invalid(f"name is longer than {MAX_NAME} characters")


def _names_in_definition(definition: Json) -> Record:
    """The name and description that a definition gives; raises Refusal 422 for what is no definition."""
    text = str(definition or "")
    if text.lstrip().startswith("{"):
        try:
            value = json_of(text)
        except Refusal:
            pass  # YAML of this form need not be JSON
        else:
            found = value if isinstance(value, dict) else {}
            return {name: found[name] for name in _FROM_DEFINITION if isinstance(found.get(name), str)}
    if len(text) > MAX_YAML:
        raise invalid(f"Definition is not valid yaml: more than {MAX_YAML} characters that are not JSON")
    try:
        return _top_texts(text)
    except (yaml.YAMLError, ValueError) as error:
        raise invalid(f"Definition is not valid yaml: {' '.join(str(error).split())}") from error


def _top_texts(text: str) -> Record:
    """Name and description in the outermost mapping of a YAML text. Nothing is constructed: only events are read."""
    found: Record = {}
    depth = 0
    key: str | None = None
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.DocumentEndEvent):
            break
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases are not allowed")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and not tag.startswith(_STANDARD_TAGS):
            raise ValueError(f"the tag {tag} is not allowed")
        if depth == 1:
            scalar = event.value if isinstance(event, yaml.ScalarEvent) else None
            if key in _FROM_DEFINITION and scalar:
                found[key] = scalar
            # A key, then its value; of a mapping or sequence that is a value, only the end counts.
            key = scalar if key is None and scalar is not None else None
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1 if depth or isinstance(event, yaml.MappingStartEvent) else 2
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
    return found
