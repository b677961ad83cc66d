# SPDX-License-Identifier: Apache-2.0
"""What is said of an image that was put into Keep is no contradiction."""

import pytest

from arv_docker.ingest.results import IngestResult
from arv_docker.model.image import Digest


@pytest.mark.parametrize(
    ("already", "sent", "state"),
    [
        (False, 0, "stored"),
        (False, 2_000_000, "stored"),
        (True, 0, "already stored"),
        (True, 2_000_000, "read, and then found to be stored already"),
    ],
)
def test_the_state_of_an_image(already: bool, sent: int, state: str) -> None:
    image_id = Digest.of(b"")
    assert IngestResult("uuid", "pdh", image_id, "app:1", already, sent, 0, 0).state == state
