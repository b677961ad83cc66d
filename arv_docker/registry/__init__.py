# SPDX-License-Identifier: Apache-2.0
"""Registries: the HTTP conversation, credentials, blobs and manifests. What images are read for is not known here."""
