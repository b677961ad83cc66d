#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-registry 2.8.3 and oras 1.2.0 (Debian trixie: docker-registry 2.8.3+ds1-2+b8, oras 1.2.0-1+b9; oras 1.3.3 does the same),
# tags/list.
#
# Expected: tags in lexical order, n=5 gives five with a Link to the rest, last=TAG those after it: the OCI specification says MUST,
#   and the same registry does so for its catalogue.
# Instead: the registry reads its folder and gives all tags in the order of the file system, whatever the query says, with no Link.
#   `oras repo tags --last TAG`, which leaves the choice to the server, prints every tag.
# Seen: "n=5: 12 tags, no Link, not sorted", "oras --last v08: 12 tags".
# Why it matters: jobs that take up where they stopped begin anew each time; "the last line is the newest" is right on one disk and
#   wrong on the next; and a repository with a hundred thousand tags comes in one answer, whatever page was asked for.
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
registry

echo content > file
for tag in v07 v03 v11 v01 v09 v05 v12 v02 v08 v10 v04 v06; do
    root/usr/bin/oras push --plain-http "127.0.0.1:$port/app:$tag" file:text/plain > log 2>&1 || changed "push fails: $(cat log)"
done
python3 - "$port" > seen <<'EOF'
import json, sys, urllib.request

with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/v2/app/tags/list?n=5") as answer:
    tags = json.load(answer)["tags"]
    link = "a Link" if answer.headers["Link"] else "no Link"
print(f"n=5: {len(tags)} tags, {link},", "sorted" if tags == sorted(tags) else "not sorted")
EOF
echo "oras --last v08: $(root/usr/bin/oras repo tags --plain-http --last v08 "127.0.0.1:$port/app" | grep -c .) tags" >> seen
cat seen
printf '%s\n' 'n=5: 12 tags, no Link, not sorted' 'oras --last v08: 12 tags' > want
cmp -s seen want || changed "tags are listed otherwise"
echo "as stated"
