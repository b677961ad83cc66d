#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# dockerfile-ast 0.7.1 (npm), `getJSONStrings()` and `getJSONValue()` of instructions in exec form.
#
# Expected: the strings of ["sh", "-c", "echo one two"] as JSON has them.
# Instead: every blank, tab and line feed within a string is gone, in getValue() and getJSONValue() alike, and so are the escapes for
#   them. No error.
# Seen: 'ENTRYPOINT: sh|-c|echoonetwo', 'COPY: myfile|/tohere/', 'SHELL: /bin/bash|-opipefail'.
# Why it matters: linters, editors and generators that read the arguments so check or write other commands and other file names than
#   the builder runs. The ranges are right: the text can be taken from there and read by JSON.parse.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
npm dockerfile-ast@0.7.1

cat > Dockerfile <<'EOF'
FROM scratch
COPY ["my file", "/to here/"]
ENTRYPOINT ["sh", "-c", "echo one two"]
CMD ["a\tb", "say \"hi\" now", "plain"]
SHELL ["/bin/bash", "-o pipefail"]
EOF
cat > read.cjs <<'EOF'
const { readFileSync } = require('node:fs')
const { DockerfileParser } = require('dockerfile-ast')

const text = readFileSync('Dockerfile', 'utf8')
for (const instruction of DockerfileParser.parse(text).getInstructions().slice(1)) {
  const right = JSON.parse(text.split('\n')[instruction.getRange().start.line].replace(/^\w+ /, ''))
  const seen = instruction.getJSONStrings().map(string => string.getJSONValue())
  console.log(`${instruction.getKeyword()}: ${seen.join('|')} for ${JSON.stringify(right)}`)
}
EOF
node read.cjs > seen
cat seen
cat > want <<'EOF'
COPY: myfile|/tohere/ for ["my file","/to here/"]
ENTRYPOINT: sh|-c|echoonetwo for ["sh","-c","echo one two"]
CMD: ab|say"hi"now|plain for ["a\tb","say \"hi\" now","plain"]
SHELL: /bin/bash|-opipefail for ["/bin/bash","-o pipefail"]
EOF
cmp -s seen want || changed "strings are read otherwise"
echo "as stated"
