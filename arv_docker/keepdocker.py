# SPDX-License-Identifier: Apache-2.0
"""The module ``arv_docker.compat.keepdocker``, under the name by which other programs import it."""

import sys

from .compat import keepdocker

sys.modules[__name__] = keepdocker
