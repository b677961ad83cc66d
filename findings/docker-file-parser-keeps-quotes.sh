#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-file-parser 1.0.7 (npm), `parse` of ENV and LABEL with quotes and backslashes.
#
# Expected: the README's "properly handles character escaping and quoting, e.g. ENV myName="John Doe" myDog=Rex\ The\ Dog": the values
#   John Doe and Rex The Dog, which the builder sets.
# Instead: the words are divided right, but quotes and backslashes stay in the values and in the keys. No error.
# Seen: 'myName: "John Doe"', 'myDog: Rex\ The\ Dog', '"my label"' with the quotes and backslashes as part of the texts.
# Why it matters: who compares, writes or sets these values has others than the image.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
npm docker-file-parser@1.0.7

cat > Dockerfile <<'EOF'
FROM scratch
ENV myName="John Doe" myDog=Rex\ The\ Dog myCat=fluffy
LABEL "my label"='v w'
EOF
cat > read.cjs <<'EOF'
const { readFileSync } = require('node:fs')
const { parse } = require('docker-file-parser')

for (const command of parse(readFileSync('Dockerfile', 'utf8')).slice(1)) {
  if (command.error) throw new Error(command.error)
  for (const [key, value] of Object.entries(command.args)) console.log(`${key}: ${value}`)
}
EOF
node read.cjs > seen
cat seen
cat > want <<'EOF'
myName: "John Doe"
myDog: Rex\ The\ Dog
myCat: fluffy
"my label": 'v w'
EOF
cmp -s seen want || changed "values are read otherwise"
echo "as stated"
