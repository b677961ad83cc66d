# SPDX-License-Identifier: Apache-2.0
"""The Arvados API of the site: records, filters, permissions, and what each resource may do."""
