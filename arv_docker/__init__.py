# SPDX-License-Identifier: Apache-2.0
"""Container images in Keep: one canonical archive per image, whatever engine it comes from.

For job launchers there is ``get_image``; it is loaded when it is first used.

>>> import arv_docker
>>> arv_docker.get_image  # doctest: +ELLIPSIS
<function get_image at 0x...>
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .launcher import ImageRecord, get_image

__version__ = "0.1.0"

__all__ = ["ImageRecord", "__version__", "get_image"]


def __getattr__(name: str) -> object:
    if name in ("ImageRecord", "get_image"):
        from . import launcher

        return getattr(launcher, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
