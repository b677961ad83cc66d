#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-parse-image 3.0.1 (npm), names of images outside Docker Hub.
#
# Expected: what Docker itself does: library/ is put before names of Docker Hub alone, the first part is a host only if it has a
#   dot or a colon or is localhost, paths may have any depth, and a digest is no tag.
# Instead: a name on a registry with a port gets library/ too, the first of three parts is always a host, four parts give null,
#   and tag and digest together are one tag.
# Seen: localhost:5000/app -> localhost:5000/library/app:latest; team/tools/app -> host "team"; a name of GitLab's form
#   (registry.example.org/group/project/app) -> null.
# Why it matters: pulls and lookups go to another repository or host than the engine's, and for the last form there is a
#   TypeError in the caller.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
npm docker-parse-image@3.0.1

cat > parse.mjs <<'EOF'
import parse from 'docker-parse-image'

for (const name of ['app', 'localhost:5000/app', 'team/tools/app', 'registry.example.org/group/project/app', 'app:1@sha256:ab']) {
    const seen = parse(name)
    console.log(name, '->', seen && `host ${seen.registry}, tag ${seen.tag}, ${seen.fullname}`)
}
EOF
node parse.mjs > seen 2> err || changed "it fails: $(cat err)"
cat seen
cat > want <<'EOF'
app -> host null, tag null, library/app:latest
localhost:5000/app -> host localhost:5000, tag null, localhost:5000/library/app:latest
team/tools/app -> host team, tag null, team/tools/app:latest
registry.example.org/group/project/app -> null
app:1@sha256:ab -> host null, tag 1@sha256:ab, library/app:1@sha256:ab
EOF
cmp -s seen want || changed "names are read otherwise"
echo "as stated"
