# SPDX-License-Identifier: Apache-2.0
"""Arvados: its API, blocks, manifest text, collections, links, and the catalogue made of them."""
