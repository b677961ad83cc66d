# SPDX-License-Identifier: Apache-2.0
"""What the site keeps on disk: a database of records, blocks as files, settings."""
