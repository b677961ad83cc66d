# SPDX-License-Identifier: Apache-2.0
"""The one exception that stands for an answer other than 200, and the JSON types of the wire."""

from __future__ import annotations

from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Record: TypeAlias = dict[str, Json]


class Refusal(Exception):
    """A request that is answered with ``status`` and one message; raised by rules, turned into JSON at the edge.

    Permanent refusals use 400 to 405, 413 and 422 only: clients retry 408, 409, 423, 429 and
    everything from 500 on (docs/spec/arvados-api.md#permanent-errors).
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def invalid(message: str) -> Refusal:
    """The refusal of a value that breaks a rule: 422, as a real server answers every failed validation."""
    return Refusal(422, message)
