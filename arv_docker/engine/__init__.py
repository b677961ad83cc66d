# SPDX-License-Identifier: Apache-2.0
"""The earlier place of ``arv_docker.engines``, by which other programs import ``podman`` and ``apptainer``."""
