# SPDX-License-Identifier: Apache-2.0
"""Measurements: how long things take, and what they cost. Not part of what is installed."""
