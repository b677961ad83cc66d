# SPDX-License-Identifier: Apache-2.0
"""Values that describe images: names, digests, configs, manifests, and the manifest text of collections. No I/O."""
