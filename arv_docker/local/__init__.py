# SPDX-License-Identifier: Apache-2.0
"""This machine: files and locks, settings, progress, and how often something is tried again."""
