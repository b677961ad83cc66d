#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# erofs-utils 1.9.4 (Debian sid: erofs-utils 1.9.4-1), `mkfs.erofs --tar=f` of a layer with a sparse file that GNU tar wrote.
#
# Expected: "Generate a full EROFS image from a regular tarball": the file with its holes, as GNU tar, Python, Go and libarchive read it;
#   or an error.
# Instead: of a sparse file in tar's posix format it makes a file GNUSparseFile.NUMBER/NAME with the map of holes and the data in a row
#   (in the older forms 0.0 and 0.1: the data in a row); one in GNU's own format it leaves out. Exit 0 in all cases, no warning.
# Seen: for a file of 3 MB "posix: GNUSparseFile.N/sparse 8704 bytes", "0.1: GNUSparseFile.N/sparse 8192 bytes", "0.0: sparse 8192
#   bytes", "gnu: nothing".
# Why it matters: `tar --sparse` is how root file systems with databases, disk images or /var/log/lastlog are packed. The EROFS image of such
#   a layer has another file under another name, and nobody is told.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
debian() { # SUITE PACKAGE=VERSION...: unpack pinned packages, and the libraries they need, into $tmp/root
    local suite=$1; shift
    mkdir -p apt/lists/partial apt/cache/archives/partial; : > apt/status
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') $suite main" > apt/sources
    export APT_CONFIG=$tmp/apt/conf
    printf '%s "%s";\n' Dir::Etc::sourcelist "$tmp/apt/sources" Dir::Etc::sourceparts - Dir::State::lists "$tmp/apt/lists" \
        Dir::State::status "$tmp/apt/status" Dir::Cache "$tmp/apt/cache" APT::Sandbox::User root > apt/conf
    apt-get -qq update && apt-get -qq -y --no-install-recommends --download-only install "$@" > apt/log 2>&1 \
        || { cat apt/log >&2; echo "cannot fetch $*" >&2; exit 3; }
    for package in apt/cache/archives/*.deb; do dpkg -x "$package" root; done
}
run() { # PROGRAM ARGUMENT...: run a program of $tmp/root with the libraries beside it
    local program=$tmp/root/usr/bin/$1; shift
    "$(find "$tmp/root" -name 'ld-linux-*.so.*' | head -n 1)" --library-path "$(find "$tmp/root/lib" "$tmp/root/usr/lib" -maxdepth 1 \
        -name '*-linux-gnu' 2> /dev/null | paste -s -d :)" "$program" "$@"
}
debian sid erofs-utils=1.9.4-1

truncate -s 3M sparse
for offset in 1048576 2097152; do printf HELLO | dd of=sparse bs=1 seek="$offset" conv=notrunc status=none; done
tar --sparse --format=gnu -cf gnu.tar sparse
tar --sparse --format=posix -cf posix.tar sparse
for version in 0.0 0.1; do tar --sparse --format=posix --sparse-version="$version" -cf "$version.tar" sparse; done
for case in posix 0.1 0.0 gnu; do
    [ "$(tar -xOf "$case.tar" | sha256sum)" = "$(sha256sum < sparse)" ] || changed "tar itself reads $case.tar otherwise"
    run mkfs.erofs --quiet --tar=f "$case.erofs" "$case.tar" 2> "$case.err" || changed "mkfs.erofs fails: $(cat "$case.err")"
    [ ! -s "$case.err" ] || changed "mkfs.erofs says $(cat "$case.err")"
    run fsck.erofs "--extract=$case" "$case.erofs" > fsck.log 2>&1 || { cat fsck.log >&2; changed "fsck.erofs fails"; }
    echo "$case: $(cd "$case" && find . -type f -printf '%P %s bytes' | sed 's/File\.[0-9]*/File.N/' | grep . || echo nothing)"
done > seen
cat seen
cat > want <<'EOF'
posix: GNUSparseFile.N/sparse 8704 bytes
0.1: GNUSparseFile.N/sparse 8192 bytes
0.0: sparse 8192 bytes
gnu: nothing
EOF
cmp -s seen want || changed "sparse files are written otherwise"
echo "as stated"
