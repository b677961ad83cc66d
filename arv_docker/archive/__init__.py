# SPDX-License-Identifier: Apache-2.0
"""The forms an image has as bytes: archives and layouts that are read, and the canonical archive that is written.

Nothing here knows where the bytes come from or go to. ``tar`` indexes an archive, which
``codecs`` decompresses; ``reader`` and ``oci`` find the images in it, ``listing`` chooses one,
``archived_image`` is that one, and ``layer`` one layer of it while it is read. ``stream`` does all that in one
pass. ``canonical`` is the archive that goes into Keep.
"""
