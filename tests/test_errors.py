# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: what commands end with, and what is shown."""

from __future__ import annotations

import inspect

import pytest

from arv_docker import errors

ALL: list[type[errors.ArvDockerError]] = [
    error for error in vars(errors).values() if inspect.isclass(error) and issubclass(error, errors.ArvDockerError)
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ArvDockerError, 1),
        (errors.NoSuchImage, 1),
        (errors.AmbiguousImage, 1),
        (errors.UsageError, 2),
        (errors.BadReference, 2),
        (errors.EngineError, 3),
        (errors.NoEngine, 3),
        (errors.EngineNotRunning, 3),
        (errors.EnginePermissionDenied, 3),
        (errors.EngineSilent, 3),
        (errors.ClusterError, 4),
        (errors.KeepError, 4),
        (errors.BadConfig, 5),
        (errors.BadArchive, 5),
        (errors.SeveralImages, 5),
        (errors.DigestMismatch, 5),
        (errors.BadManifestText, 5),
        (errors.NotVerified, 5),
        (errors.NoRootfs, 5),
        (errors.UnsupportedDigest, 5),
        (errors.OciArtifact, 5),
        (errors.LayerCountMismatch, 5),
        (errors.SchemaOne, 5),
        (errors.NoCluster, 6),
        (errors.BadSettings, 6),
        (errors.DiskError, 7),
        (errors.ShadowedName, 8),
        (errors.RegistryError, 9),
        (errors.RegistryDenied, 9),
        (errors.UnsupportedByRegistry, 9),
        (errors.NotReady, 10),
        (errors.BuildFailed, 11),
    ],
)
def test_exit_codes(error: type[errors.ArvDockerError], code: int) -> None:
    assert error("what happened").exit_code == code


def test_every_error_is_in_one_tree_and_says_when_it_happens() -> None:
    assert len(ALL) >= 27
    assert all(error.__doc__ for error in ALL)
    others = [it for it in vars(errors).values() if inspect.isclass(it) and it not in ALL]
    assert not any(issubclass(other, Exception) for other in others)


@pytest.mark.parametrize("error", ALL)
def test_message_and_detail(error: type[errors.ArvDockerError]) -> None:
    raised = error("what happened", detail="\n  the engine's words\n")
    assert raised.message == "what happened"
    assert raised.detail == "the engine's words"
    assert str(raised) == "what happened\nthe engine's words"
    assert str(error("what happened")) == "what happened"


def test_a_cluster_error_keeps_its_status() -> None:
    assert errors.ClusterError("refused", status=422).status == 422
    assert errors.KeepError("lost").status is None
