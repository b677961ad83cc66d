# SPDX-License-Identifier: Apache-2.0
"""The module ``arv_docker.engines.apptainer``, under the name by which other programs import it."""

import sys

from ..engines import apptainer

sys.modules[__name__] = apptainer
