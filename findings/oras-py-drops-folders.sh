#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# oras 0.2.43 (PyPI) against docker-registry 2.8.3 (Debian trixie: docker-registry 2.8.3+ds1-2+b8), push of files in folders.
#
# Expected: files=["train/data.csv", "test/data.csv"] come back as two files, under these names, as with the oras command line; or
#   push says that the names clash.
# Instead: push keeps the last part of each name alone. pull then writes one file over the other, returns the same path twice and
#   raises nothing. The oras command line refuses to pull what was pushed ("duplicate name").
# Seen: "pulled 2 paths, 1 file: data.csv (test)".
# Why it matters: half of a data set is gone without an error, and the digests on both sides are right.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
debian() { # SUITE PACKAGE=VERSION...: unpack pinned packages into $tmp/root
    local suite=$1; shift
    mkdir -p apt/lists/partial apt/cache/archives/partial; : > apt/status
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') $suite main" > apt/sources
    export APT_CONFIG=$tmp/apt/conf
    printf '%s "%s";\n' Dir::Etc::sourcelist "$tmp/apt/sources" Dir::Etc::sourceparts - Dir::State::lists "$tmp/apt/lists" \
        Dir::State::status "$tmp/apt/status" Dir::Cache "$tmp/apt/cache" APT::Sandbox::User root > apt/conf
    apt-get -qq update && (cd apt && apt-get -qq download "$@") || { echo "cannot fetch $*" >&2; exit 3; }
    for package in apt/*.deb; do dpkg -x "$package" root; done
}
debian trixie docker-registry=2.8.3+ds1-2+b8
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry() { # start docker-registry on $port of the loopback interface
    printf '%s\n' "version: 0.1" "log: {level: error}" \
        "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}" "http: {addr: '127.0.0.1:$port'}" > registry.yml
    root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & server=$!
    trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
    for _ in $(seq 50); do python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2> /dev/null && return; sleep 0.1; done
    echo "the registry does not start: $(cat registry.log)" >&2; exit 3
}
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi oras==0.2.43
registry

mkdir train test out
echo train > train/data.csv
echo test > test/data.csv
venv/bin/python - "$port" > seen <<'EOF'
import pathlib, sys

import oras.client

client = oras.client.OrasClient(insecure=True)
target = f"127.0.0.1:{sys.argv[1]}/data:1"
client.push(target=target, files=["train/data.csv", "test/data.csv"])
paths = client.pull(target=target, outdir="out")
files = [path for path in pathlib.Path("out").rglob("*") if path.is_file()]
print(f"pulled {len(paths)} paths, {len(files)} file:", *(f"{path.relative_to('out')} ({path.read_text().strip()})" for path in files))
EOF
cat seen
[ "$(cat seen)" = "pulled 2 paths, 1 file: data.csv (test)" ] || changed "see above"
echo "as stated"
