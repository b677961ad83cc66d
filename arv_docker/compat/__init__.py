# SPDX-License-Identifier: Apache-2.0
"""Faces for other programs, in place of ``arvados.commands.keepdocker``."""
