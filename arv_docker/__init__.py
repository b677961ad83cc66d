# SPDX-License-Identifier: Apache-2.0
"""Container images in Keep: one canonical archive per image, from any engine.

For job launchers there is ``get_image``, for those who carry images along ``materialize`` and ``deploy``. Public is
what ``dir(arv_docker)`` lists, and so are the errors in ``arv_docker.errors``, the protocols in
``arv_docker.transports`` and the tests in ``arv_docker.testing``. Everything else may change with any release. Names
are loaded on first use.

>>> import arv_docker
>>> arv_docker.get_image  # doctest: +ELLIPSIS
<function get_image at 0x...>
"""

from __future__ import annotations

import os
import sys

_PROGRAM = sys.argv[0].rpartition("/")[2] if getattr(sys, "argv", None) else ""


def _end_interrupted(_number: int, _frame: object) -> None:
    """End the command here and now, with one line, where Python would print a traceback."""
    os.write(2, f"{_PROGRAM}: interrupted\n".encode())
    os._exit(130)


if _PROGRAM in ("arv-docker", "arv-keepdocker"):  # before any other module is read; cli/interrupt.py goes on with it
    _signals = __import__("_signal")  # which is there; to import signal takes a while
    if _signals.getsignal(_signals.SIGINT) is _signals.default_int_handler:
        _signals.signal(_signals.SIGINT, _end_interrupted)

import importlib  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

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
