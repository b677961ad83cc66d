# SPDX-License-Identifier: Apache-2.0
"""Images in a folder that a workflow carries along: put there with all that is known of them, and loaded from there.

``staged`` has what such a folder holds, ``origins`` where images come from, ``folder`` the usual
form of a folder; ``stage`` puts images there, ``deployment`` loads them.
"""

from .deployment import DeployedImage, deploy_images
from .stage import stage_images
from .staged import Container

__all__ = ["Container", "DeployedImage", "deploy_images", "stage_images"]
