# SPDX-License-Identifier: Apache-2.0
"""The catalog of a cluster: the links and collections that say which image a name means."""
