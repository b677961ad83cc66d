# SPDX-License-Identifier: Apache-2.0
"""The forms an image has as bytes: docker-archives that are read, and the canonical archive that is written.

Nothing here knows where the bytes come from or go to. ``tar`` indexes an archive,
``docker`` finds the image in it, ``layer`` is one layer while it is read, ``canonical``
is the archive that goes into Keep.
"""
