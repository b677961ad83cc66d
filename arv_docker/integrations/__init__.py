# SPDX-License-Identifier: Apache-2.0
"""Adapters for the interfaces of other programs."""
