# SPDX-License-Identifier: Apache-2.0
"""Faces for other programs that know their own interfaces."""
