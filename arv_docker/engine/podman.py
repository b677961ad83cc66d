# SPDX-License-Identifier: Apache-2.0
"""The module ``arv_docker.engines.podman``, under the name by which other programs import it."""

import sys

from ..engines import podman

sys.modules[__name__] = podman
