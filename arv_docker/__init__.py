# SPDX-License-Identifier: Apache-2.0
"""Container images in Keep: one canonical archive per image, whatever engine it comes from."""

__version__ = "0.1.0"
