# SPDX-License-Identifier: Apache-2.0
"""Compression of layers and of whole archives: gzip, zstd, ZIP."""
