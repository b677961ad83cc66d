#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# erofs-utils 1.9.4 (Debian sid: erofs-utils 1.9.4-1), `fsck.erofs --extract --xattrs` of a file with capabilities. Needs root.
#
# Expected: --xattrs dumps extended attributes, and the superuser keeps owners and modes; so ping and the like keep
#   security.capability, as with `unsquashfs` and `tar --xattrs`.
# Instead: it sets the attributes first and the owner then; the kernel takes away the capability when a file's owner is set, and
#   nothing sets it again. Other attributes stay. With --no-preserve-owner the capability is there. Exit 0, no warning.
# Seen: "default: user.note", "--no-preserve-owner: security.capability user.note".
# Why it matters: a root file system unpacked from an EROFS image looks whole, and its ping, dumpcap or web server fail for users.
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

python3 - <<'EOF'
import struct, tarfile

with tarfile.open("layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    member = tarfile.TarInfo("ping")
    member.mode = 0o755
    member.pax_headers = {"SCHILY.xattr.user.note": "kept",
                          "SCHILY.xattr.security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("latin1")}
    tar.addfile(member)
EOF
run mkfs.erofs --quiet --tar=f layer.erofs layer.tar || changed "mkfs.erofs fails"
for options in "" --no-preserve-owner; do
    run fsck.erofs --xattrs "--extract=files$options" $options layer.erofs > fsck.log 2>&1 || { cat fsck.log >&2; changed "fsck.erofs fails"; }
    echo "${options:-default}: $(python3 -c 'import os, sys; print(*sorted(os.listxattr(sys.argv[1])))' "files$options/ping")"
done > seen
cat seen
cat > want <<'EOF'
default: user.note
--no-preserve-owner: security.capability user.note
EOF
cmp -s seen want || changed "other attributes are there"
echo "as stated"
