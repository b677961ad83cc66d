# SPDX-License-Identifier: Apache-2.0
"""Interfaces for other programs, in place of ``arvados.commands.keepdocker``."""
