#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# dockerfile-parse 2.0.1 (PyPI), here-documents and defaults of variables.
#
# Expected: lines inside a here-document (RUN <<EOF, stable in BuildKit since Dockerfile syntax 1.4) are not taken for
#   instructions, and ${TAG:-12} is 12 where TAG is not set, as the Dockerfile reference says.
# Instead: every line of the document is an instruction. One that begins with FROM, as any generated Dockerfile or SQL statement
#   does, becomes a stage, and the base image of the whole file. ${TAG:-12} becomes the value of TAG followed by ":-12}".
# Seen: base image "patients" of a file that says FROM debian:12; base image "debian::-12}" of FROM debian:${TAG:-12}, and
#   "debian:13:-12}" with ARG TAG=13.
# Why it matters: provenance, base image policies and rebuild triggers go by what this library says the base image is.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi dockerfile-parse==2.0.1

venv/bin/python - > seen <<'EOF'
import io

from dockerfile_parse import DockerfileParser

FILES = {
    "heredoc": "FROM debian:12\nRUN <<EOF\npsql -c 'SELECT id\nFROM patients'\nEOF\nLABEL kept=yes\n",
    "unset": "ARG TAG\nFROM debian:${TAG:-12}\n",
    "set": "ARG TAG=13\nFROM debian:${TAG:-12}\n",
}
for name, text in FILES.items():
    parser = DockerfileParser(fileobj=io.BytesIO())
    parser.content = text
    print(f"{name}: base image {parser.baseimage}, stages {len(parser.parent_images)}")
EOF
cat seen
cat > want <<'EOF'
heredoc: base image patients, stages 2
unset: base image debian::-12}, stages 1
set: base image debian:13:-12}, stages 1
EOF
cmp -s seen want || changed "dockerfile-parse reads otherwise"
echo "as stated"
