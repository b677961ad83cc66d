# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of transports."""

from ..registry.conftest import registry, tokens, waited

__all__ = ["registry", "tokens", "waited"]
