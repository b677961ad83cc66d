# SPDX-License-Identifier: Apache-2.0
"""Packaging of arv-docker; the settings of its tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "arv_docker/__init__.py").read_text())[1]

#: What the embedded site alone needs: `--local` and `arv-docker site`.
SITE = ["starlette>=0.40", "uvicorn>=0.30", "httptools>=0.6", "cryptography>=42"]
#: What reads layers and archives that are compressed with zstd, and those with gzip faster than Python itself.
ZSTD = ["zstandard>=0.22"]
FAST = ["isal>=1.6"]
TESTS = [
    *("pytest>=8", "pytest-cov>=7", "pytest-mock>=3.14", "pytest-xdist>=3.6", "hypothesis>=6.100"),
    *("ruff==0.17.5", "mypy==2.4.1"),
]

setup(
    name="arv-docker",
    version=VERSION,
    description="Container images in Arvados Keep: one canonical archive per image, whatever engine it comes from",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["arv_docker", "arv_docker.*"]),
    package_data={"arv_docker": ["py.typed"]},
    python_requires=">=3.10",
    # One step may be part of another, which rich shows from 14.1 on, and refuses before.
    # Fish is completed by shtab from 1.8 on, and commands below commands from 1.13 on.
    install_requires=["arvados-python-client>=3.0", "ciso8601>=2.0", "rich>=14.1", "shtab>=1.13", "urllib3>=2.2"],
    extras_require={"site": SITE, "zstd": ZSTD, "fast": FAST, "test": SITE + ZSTD + FAST + TESTS},
    entry_points={
        "console_scripts": [
            "arv-keepdocker = arv_docker.cli.arv_keepdocker:main",
            "arv-docker = arv_docker.cli.arv_docker:main",
        ],
        "repo2docker.engines": ["keep = arv_docker.integrations.repo2docker:KeepEngine"],
    },
)
