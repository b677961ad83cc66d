#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# oras 0.2.43 (PyPI) and oras 1.2.0 (Debian trixie: oras 1.2.0-1+b9, with docker-registry 2.8.3+ds1-2+b8; oras 1.3.3 does the
# same), a folder pushed by the one and pulled by the other.
#
# Expected: the Python library is the same project's, so a folder that it pushes is a folder again for the command line.
# Instead: the library does not write the annotation io.deis.oras.content.unpack, by which the command line knows a packed folder:
#   `oras pull` writes a file of the folder's name, a gzipped tar without an ending. Exit 0. The other way round it works, and
#   from library to library too, because there every layer of the type …layer.v1.tar+gzip is taken for a folder.
# Seen: "oras pull: results is a file", "library: results is a folder".
# Why it matters: a job that reads results/… finds "Not a directory"; the name and the digest are right.
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
debian trixie docker-registry=2.8.3+ds1-2+b8 oras=1.2.0-1+b9
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

mkdir results cli library
echo 1 > results/table.csv
target=127.0.0.1:$port/data:1
venv/bin/python - "$target" > log 2>&1 <<'EOF' || changed "the library fails: $(cat log)"
import sys

import oras.client

client = oras.client.OrasClient(insecure=True)
client.push(target=sys.argv[1], files=["results"])
client.pull(target=sys.argv[1], outdir="library")
EOF
root/usr/bin/oras pull --plain-http -o cli "$target" > log 2>&1 || changed "oras pull fails: $(cat log)"
kind() { if [ -d "$1" ]; then echo "a folder"; elif [ -f "$1" ]; then echo "a file"; else echo "not there"; fi; }
echo "oras pull: results is $(kind cli/results)"
echo "library: results is $(kind library/results)"
[ "$(kind cli/results), $(kind library/results)" = "a file, a folder" ] || changed "see above"
tar -tzf cli/results > log || changed "the file is no gzipped tar"
echo "as stated"
