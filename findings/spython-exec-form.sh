#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# spython 0.3.14 (PyPI), `spython recipe`: ENTRYPOINT and CMD in exec form, ENV in its old form.
#
# Expected: the arguments of ["/app", "two words"] arrive as they are; a lone CMD ["/app"] runs /app; ENV TITLE My nice tool sets
#   one variable.
# Instead: the words are joined with blanks and written unquoted into %runscript, where the shell splits and expands them. A CMD
#   without ENTRYPOINT is started as a script of bash, and so fails for every program that is a binary. ENV's old form is split
#   at each blank. Exit 0, no warning.
# Seen: 'exec /app two words a;b "$@"', 'exec /bin/bash /app "$@"', and "TITLE=My", "nice=tool".
# Why it matters: the recipe looks right and builds; the jobs get other arguments than they had with Docker, or "cannot execute
#   binary file".
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi spython==0.3.14

printf '%s\n' 'FROM debian:12' 'ENTRYPOINT ["/app", "two words", "a;b"]' > Dockerfile.entrypoint
printf '%s\n' 'FROM debian:12' 'CMD ["/app"]' > Dockerfile.cmd
printf '%s\n' 'FROM debian:12' 'ENV TITLE My nice tool' > Dockerfile.env
for case in entrypoint cmd env; do
    venv/bin/spython recipe --parser docker "Dockerfile.$case" > "$case.def" 2> "$case.err" || changed "spython fails: $(cat "$case.err")"
    echo "$case: $(sed -n '/%runscript/,/^%/s/^exec .*app.*/&/p; /%environment/,/^%/s/^export.*/&/p' "$case.def" | paste -s -d ' ')"
done > seen
cat seen
cat > want <<'EOF'
entrypoint: exec /app two words a;b "$@"
cmd: exec /bin/bash /app "$@"
env: export TITLE=My export nice=tool
EOF
cmp -s seen want || changed "spython writes otherwise"
echo "as stated"
