#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# packageurl-python 0.17.6 (PyPI) and packageurl-js 2.0.1 (npm), package URLs of container images.
#
# Expected: a purl has one canonical text, so that the two libraries write the same for the same image.
# Instead: wherever a qualifier has a slash or a colon they differ: Python leaves both as they are, JavaScript writes %2F and
#   %3A. Every pkg:oci needs a repository_url to say where the image is, and BuildKit's subjects (pkg:docker) have
#   platform=linux%2Famd64: each has two texts. Python even changes the text that it parsed from BuildKit.
# Seen: "pkg:oci/app@sha256:ab?repository_url=localhost:5000/team/app" from Python and
#   "…repository_url=localhost%3A5000%2Fteam%2Fapp" from JavaScript; the same for platform=linux/amd64.
# Why it matters: joining SBOMs, VEX statements or attestations of images by the text of the purl finds no match between tools
#   in Python (CycloneDX's library uses this one) and in JavaScript. Compare parsed purls.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi packageurl-python==0.17.6
npm packageurl-js@2.0.1

cat > subjects <<'EOF'
pkg:oci/app@sha256:ab?repository_url=localhost:5000/team/app
pkg:docker/localhost:5000/team/app@1?platform=linux%2Famd64
EOF
venv/bin/python - > python.out <<'EOF'
from packageurl import PackageURL

for line in open("subjects"):
    print(PackageURL.from_string(line.strip()).to_string())
EOF
cat > canonical.mjs <<'EOF'
import { readFileSync } from 'node:fs'
import { PackageURL } from 'packageurl-js'

for (const line of readFileSync('subjects', 'utf8').trim().split('\n'))
    console.log(PackageURL.fromString(line).toString())
EOF
node canonical.mjs > node.out
paste -d '\n' python.out node.out
cat > python.want <<'EOF'
pkg:oci/app@sha256:ab?repository_url=localhost:5000/team/app
pkg:docker/localhost:5000/team/app@1?platform=linux/amd64
EOF
cat > node.want <<'EOF'
pkg:oci/app@sha256:ab?repository_url=localhost%3A5000%2Fteam%2Fapp
pkg:docker/localhost:5000/team/app@1?platform=linux%2Famd64
EOF
cmp -s python.out python.want || changed "packageurl-python writes otherwise"
cmp -s node.out node.want || changed "packageurl-js writes otherwise"
echo "as stated"
