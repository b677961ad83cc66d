# SPDX-License-Identifier: Apache-2.0
"""Packaging of arv-docker; the settings of its tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
#: Where the project will live; to be set before the first release. Links of the README lead there from an index.
URL = "https://github.com/arv-docker/arv-docker"
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "arv_docker/__init__.py").read_text())[1]

#: What the embedded site alone needs: `--local` and `arv-docker site`.
SITE = ["starlette>=0.40", "uvicorn>=0.30", "httptools>=0.6", "cryptography>=42", "pyyaml>=6"]
#: What reads layers and archives that are compressed with zstd, and those with gzip faster than Python itself.
ZSTD = ["zstandard>=0.22"]
FAST = ["isal>=1.6"]
TESTS = [
    *("pytest>=8", "pytest-cov>=7", "pytest-mock>=3.14", "pytest-xdist>=3.6", "hypothesis>=6.100", "jsonschema>=4.20"),
    *("ruff==0.17.5", "mypy==2.4.1", "argparse-manpage>=4.6"),
    *("build>=1.2", "twine>=6", "check-wheel-contents>=0.6", "pyroma>=4.2"),
]


def long_description() -> str:
    """The README, its links to pages of the repository made absolute."""
    text = (HERE / "README.md").read_text()
    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", rf"]({URL}/blob/main/\1)", text)


setup(
    name="arv-docker",
    version=VERSION,
    description="Container images in Arvados Keep: one canonical archive per image, whatever engine it comes from",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    author="The arv-docker authors",
    author_email="arv-docker@users.noreply.github.com",
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    },
    keywords="arvados keep docker podman oci container image registry",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering",
        "Topic :: System :: Archiving",
        "Typing :: Typed",
    ],
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
