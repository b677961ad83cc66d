# SPDX-License-Identifier: Apache-2.0
"""Making ``import arvados.commands.keepdocker`` yield ``arv_docker.keepdocker``.

Imported at the start of every Python of an environment where ``arv-docker
install-command --module`` asked for it, so it imports nothing until that name is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

REPLACED = "arvados.commands.keepdocker"
REPLACEMENT = "arv_docker.compat.keepdocker"

_ORIGIN = __file__.replace("import_hook.py", "keepdocker.py")


class _Finder(MetaPathFinder, Loader):
    """Import finder of REPLACEMENT under the name REPLACED, and of nothing else."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(REPLACED, self, origin=_ORIGIN) if fullname == REPLACED else None

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        module = import_module(REPLACEMENT)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system put the other name's there

    def get_code(self, _fullname: str) -> CodeType:
        """Code that ``python -m`` runs under that name: the command."""
        return compile(f"from {REPLACEMENT} import main\nmain()\n", REPLACED, "exec")


def install() -> None:
    """Make the import give the replacement from now on; again has no effect."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
        sys.modules.pop(REPLACED, None)
