# SPDX-License-Identifier: Apache-2.0
"""Storage of the site on disk: a database of records, blocks as files, settings."""
