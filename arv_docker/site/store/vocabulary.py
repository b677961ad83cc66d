# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of property keys: what ``GET vocabulary`` answers, and the check of a strict one.

A site has none unless its folder holds a file ``vocabulary.json``. With ``strict_tags`` a
property key that the file does not list is refused with 422.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..refusal import Json, Record, invalid

#: Keys that Arvados itself writes; no vocabulary needs to list them.
_OWN_KEYS = frozenset(
    [
        "docker-image-repo-tag",
        "image_timestamp",
        "type",
        "container_request",
        "container_uuid",
        "cwl_input",
        "cwl_output",
    ]
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The known tags, by key, and if others are refused."""

    strict: bool = False
    tags: Record = field(default_factory=dict)

    def check(self, properties: Json) -> None:
        """Raise Refusal 422 for a key that a strict vocabulary does not know."""
        if not self.strict or not isinstance(properties, dict):
            return
        for key in properties:
            if key not in self.tags and key not in _OWN_KEYS and not key.startswith("arv:"):
                raise invalid(f"tag key '{key}' is not defined in the vocabulary")

    def document(self) -> Record:
        """The answer to ``GET vocabulary``."""
        return {"kind": "arvados#vocabulary", "strict_tags": self.strict, "tags": self.tags}
