#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7 and docker-registry 2.8.3 (Debian sid: crane 0.20.7+ds1-5, docker-registry 2.8.3+ds1-3), `crane pull A B C FILE`.
#
# Expected: the file is the same each time, as it is for one image (crane leaves times and owners out on purpose), with the images
#   in the order of the command line.
# Instead: the order is another at each run, in manifest.json and of the files behind it.
# Seen: "one image: 1 different file", "three images: 4 different files" (any number from 2 to 6) in 16 runs.
# Why it matters: stores that find content by its hash keep the archive anew each time, and a comparison of two pulls by checksum
#   says that the images changed.
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
debian sid crane=0.20.7+ds1-5 docker-registry=2.8.3+ds1-3
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

names=
for name in one two three; do
    echo "$name" > file; tar -cf layer.tar file
    root/usr/bin/crane append --oci-empty-base -f layer.tar -t "127.0.0.1:$port/$name:1" > log 2>&1 || changed "append fails: $(cat log)"
    names="$names 127.0.0.1:$port/$name:1"
done
count() { # IMAGE...: number of different files that 16 pulls write
    for _ in $(seq 16); do
        root/usr/bin/crane pull "$@" out.tar > log 2>&1 || changed "pull fails: $(cat log)"
        sha256sum < out.tar
    done | sort -u | wc -l
}
one=$(count "127.0.0.1:$port/one:1")
# shellcheck disable=SC2086
three=$(count $names)
echo "one image: $one different file"
echo "three images: $three different files"
[ "$one" = 1 ] || changed "one image gives $one different files"
[ "$three" -gt 1 ] || changed "three images give the same file each time"
echo "as stated"
