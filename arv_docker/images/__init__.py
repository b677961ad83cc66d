# SPDX-License-Identifier: Apache-2.0
"""Images in Keep: names, verification, and loading into an engine."""
