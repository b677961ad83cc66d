# SPDX-License-Identifier: Apache-2.0
"""Container images in Keep: one canonical archive per image, whatever engine it comes from.

For job launchers there is ``get_image``, for those who carry images along ``materialize`` and ``deploy``. Public is
what ``dir(arv_docker)`` lists, and so are the errors in ``arv_docker.errors``, the protocols in
``arv_docker.transports`` and the tests in ``arv_docker.testing``. Everything else may change with any release. Names
are loaded on first use.

>>> import arv_docker
>>> arv_docker.get_image  # doctest: +ELLIPSIS
<function get_image at 0x...>
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .api import ImageRecord, deploy, get_image, materialize, open_cluster, open_engine
    from .local.progress import Lines, Progress, SilentProgress
    from .model.image import Digest
    from .staging import Container, DeployedImage

__version__ = "0.1.0"

__all__ = [
    "Container",
    "DeployedImage",
    "Digest",
    "ImageRecord",
    "Lines",
    "Progress",
    "SilentProgress",
    "__version__",
    "deploy",
    "errors",
    "get_image",
    "materialize",
    "open_cluster",
    "open_engine",
]

_ROOMS = {
    "api": ("ImageRecord", "deploy", "get_image", "materialize", "open_cluster", "open_engine"),
    "local.progress": ("Lines", "Progress", "SilentProgress"),
    "model.image": ("Digest",),
    "staging": ("Container", "DeployedImage"),
}


def __getattr__(name: str) -> object:
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(f".{room}", __name__), name)
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
