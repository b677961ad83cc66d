# SPDX-License-Identifier: Apache-2.0
"""The command ``arv-docker``, as ``python -m arv_docker``."""

import sys

from .cli.arv_docker import main

if __name__ == "__main__":
    sys.exit(main())
