# SPDX-License-Identifier: Apache-2.0
"""Putting images into Keep: from an engine, an archive, a registry, a pipe or another cluster."""
