# SPDX-License-Identifier: Apache-2.0
"""The module ``arv_docker.compat.import_hook``, under the name that stands in ``.pth`` files of environments."""

import sys

from .compat import import_hook

sys.modules[__name__] = import_hook
