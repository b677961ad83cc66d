#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# e2fsprogs 1.47.4 (Debian sid: e2fsprogs 1.47.4-1+b2), `mke2fs -d` of a layer with extended attributes.
#
# Expected: "Copy the contents of the given directory or tarball into the root directory of the file system": the same file system
#   from both.
# Instead: from a directory all extended attributes are copied; from a tarball security.capability alone. Exit 0, no warning.
# Seen: "directory: security.capability user.note", "tarball: security.capability".
# Why it matters: a root file system for a virtual machine made straight from a layer lacks the attributes that programs set: labels
#   (security.*, trusted.*), ACLs and user.* are gone, and the same image unpacked first has them.
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
debian sid e2fsprogs=1.47.4-1+b2 libarchive13t64

python3 - <<'EOF'
import os, struct, tarfile

attributes = {"user.note": b"kept", "security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)}
os.mkdir("tree")
with open("tree/ping", "wb"):
    pass
for name, value in attributes.items():
    os.setxattr("tree/ping", name, value)
with tarfile.open("layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    folder = tarfile.TarInfo("./")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(folder)
    member = tarfile.TarInfo("./ping")
    member.mode = 0o755
    member.pax_headers = {"SCHILY.xattr." + name: value.decode("latin1") for name, value in attributes.items()}
    tar.addfile(member)
EOF
ls -d root/sbin > /dev/null 2>&1 || ln -s usr/sbin root/sbin
ln -s ../sbin/mke2fs ../sbin/debugfs root/usr/bin/
for case in directory:tree tarball:layer.tar; do
    truncate -s 8M "${case%:*}.img"
    run mke2fs -q -t ext4 -d "${case#*:}" "${case%:*}.img" 2> mke2fs.log || { cat mke2fs.log >&2; changed "mke2fs fails"; }
    echo "${case%:*}: $(run debugfs -R "ea_list ping" "${case%:*}.img" 2> debugfs.log | sed -n 's/^  *\([a-z.]*\) (.*/\1/p' | LC_ALL=C sort \
        | paste -s -d ' ')"
done > seen
cat seen
cat > want <<'EOF'
directory: security.capability user.note
tarball: security.capability
EOF
cmp -s seen want || changed "other attributes are there"
echo "as stated"
