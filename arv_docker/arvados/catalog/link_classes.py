# SPDX-License-Identifier: Apache-2.0
"""Classes of links that are about images (docs/spec/catalogue.md#link-classes)."""

REPO_TAG = "docker_image_repo+tag"
HASH = "docker_image_hash"
#: Further digests by which engines and registries call an image; the server and upstream do not look at them.
DIGEST = "docker_image_digest"
MIGRATION = "docker_image_migration"
