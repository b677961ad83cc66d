# SPDX-License-Identifier: Apache-2.0
"""Container images in Keep: one canonical archive per image, whatever engine it comes from.

For job launchers there is ``get_image``, for those who carry images along ``materialize`` and
``deploy``; each is loaded when it is first used.

>>> import arv_docker
>>> arv_docker.get_image  # doctest: +ELLIPSIS
<function get_image at 0x...>
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import ImageRecord, get_image, open_cluster
    from .staging import Container, DeployedImage, deploy, materialize

__version__ = "0.1.0"

__all__ = [
    "Container",
    "DeployedImage",
    "ImageRecord",
    "__version__",
    "deploy",
    "get_image",
    "materialize",
    "open_cluster",
]

_ROOMS = {
    "api": ("ImageRecord", "get_image", "open_cluster"),
    "staging": ("Container", "DeployedImage", "deploy", "materialize"),
}


def __getattr__(name: str) -> object:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f".{room}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
