#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# spython 0.3.14 (PyPI), `spython recipe` of a Dockerfile with two stages.
#
# Expected: two stages in the definition file, which has them too (Stage: build, %files from build), or an error.
# Instead: one stage. It has the name of the first, the base image of the last, and the commands of both, and copies files from
#   itself. Exit 0. With COPY --from=0 and no names the copy is left out as well, with a warning.
# Seen: "From: alpine:3.18", "Stage: build", the compiler's command in %post, "%files from build" in the same stage.
# Why it matters: cwltool converts a dockerFile of a workflow with these same classes when it runs with Singularity. What is built
#   has no compiler in the base that the commands need, or all of the build's rubbish in the final image.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi spython==0.3.14

cat > Dockerfile <<'EOF'
FROM golang:1.22 AS build
RUN go build -o /out/app .
FROM alpine:3.18
COPY --from=build /out/app /usr/bin/app
EOF
venv/bin/spython recipe Dockerfile > seen 2> err || changed "spython refuses the file: $(cat err)"
cat seen
[ "$(grep -c '^From:' seen)" = 1 ] || changed "there are $(grep -c '^From:' seen) stages"
for line in 'From: alpine:3.18' 'Stage: build' '%files from build' 'go build -o /out/app .'; do
    grep -qxF -- "$line" seen || changed "no line $line"
done
if grep -q golang seen; then changed "the first stage's image is there"; fi
echo "as stated"
