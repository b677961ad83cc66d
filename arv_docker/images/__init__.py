# SPDX-License-Identifier: Apache-2.0
"""Images that are in Keep: their names, their verification, and loading them into an engine."""
