# SPDX-License-Identifier: Apache-2.0
"""The settings of a site: identity, secrets, lifetimes. A value; ``folder`` reads and writes it."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...errors import BadSettings
from ..refusal import Json, Record
from .signatures import Signer

#: Two weeks: what real clusters start with, both for signatures and for the trash.
TWO_WEEKS = 14 * 24 * 3600

_BASE36 = string.digits + string.ascii_lowercase


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a site; durations in seconds."""

    cluster_id: str
    blob_signing_key: str
    user_uuid: str
    token_uuid: str
    token_secret: str
    keep_service_uuid: str
    created_at: str
    username: str = "user"
    blob_signature_ttl: int = TWO_WEEKS
    trash_lifetime: int = TWO_WEEKS

    @property
    def token(self) -> str:
        """The user's token in the form that clients send."""
        return f"v2/{self.token_uuid}/{self.token_secret}"

    @property
    def system_user_uuid(self) -> str:
        """The UUID of the owner of what belongs to the site itself."""
        return f"{self.cluster_id}-tpzed-000000000000000"

    @property
    def signer(self) -> Signer:
        """The signer of this site's blocks."""
        return Signer(self.blob_signing_key.encode(), self.blob_signature_ttl)

    def new_uuid(self, infix: str) -> str:
        """A fresh UUID of this cluster."""
        return new_uuid(self.cluster_id, infix)

    def new_secret(self) -> str:
        """A fresh secret part of a token."""
        return _random(50)

    def to_json(self) -> str:
        """The text of the settings file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def new_settings(created_at: str, username: str) -> Settings:
    """Settings for a site that did not exist before: random identity, random secrets."""
    # Never "local…" or another fixed word: two sites must not share an id, or arv-copy between them would
    # take them for one cluster. A letter first, so that it can never look like a number.
    cluster_id = secrets.choice(string.ascii_lowercase) + _random(4)
    return Settings(
        cluster_id=cluster_id,
        blob_signing_key=secrets.token_hex(32),
        user_uuid=new_uuid(cluster_id, "tpzed"),
        token_uuid=new_uuid(cluster_id, "gj3su"),
        token_secret=_random(50),
        keep_service_uuid=new_uuid(cluster_id, "bi6l4"),
        created_at=created_at,
        username=username,
    )


def parse_settings(text: str, where: str) -> Settings:
    """The settings that a file's text holds; raises BadSettings. ``where`` names the file in the message."""
    try:
        found: Json = json.loads(text)
        if not isinstance(found, dict):
            raise TypeError("not an object")
        return _settings_of(found)
    except (ValueError, TypeError, KeyError) as error:
        raise BadSettings(f"The site settings {where} cannot be read.", detail=str(error)) from error


def new_uuid(cluster_id: str, infix: str) -> str:
    """A fresh UUID: ``CLUSTER-INFIX-`` and 15 random base-36 digits."""
    return f"{cluster_id}-{infix}-{_random(15)}"


def _settings_of(document: Record) -> Settings:
    values: dict[str, Any] = {}
    for field in fields(Settings):
        value = values[field.name] = document[field.name]
        if not isinstance(value, int if field.type == "int" else str):
            raise TypeError(f"{field.name} is no {field.type}")
    return Settings(**values)


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE36) for _ in range(length))
