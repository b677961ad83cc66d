# SPDX-License-Identifier: Apache-2.0
"""Images for others: in a registry, and in a folder of archives."""
