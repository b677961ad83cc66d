# SPDX-License-Identifier: Apache-2.0
"""Adapters for other programs that know their own interfaces."""
