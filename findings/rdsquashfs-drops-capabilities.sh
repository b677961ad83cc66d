#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# squashfs-tools-ng 1.3.2 (Debian sid: squashfs-tools-ng 1.3.2-1+b2), `rdsquashfs --unpack-path / --set-xattr --chown`. Needs root.
#
# Expected: the two options together restore attributes and owners, as `unsquashfs` does: ping and the like keep security.capability; and
#   a file with two names is one file with two names, as in the image and in what sqfs2tar writes of it.
# Instead: the attributes are set first and the owner then, whereupon the kernel takes away the capability; other attributes stay. Each
#   name becomes a file of its own. Exit 0, no warning.
# Seen: "--set-xattr: security.capability user.note, 1 link", "--set-xattr --chown: user.note, 1 link"; sqfs2tar has both, and the link.
# Why it matters: a root file system unpacked from a SIF or another SquashFS image looks whole, and its ping, dumpcap or web server fail for
#   users; a conda environment has several times its size.
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
debian sid squashfs-tools-ng=1.3.2-1+b2

python3 - <<'EOF'
import struct, tarfile

with tarfile.open("layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
    member = tarfile.TarInfo("ping")
    member.mode = 0o755
    member.pax_headers = {"SCHILY.xattr.user.note": "kept",
                          "SCHILY.xattr.security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("latin1")}
    tar.addfile(member)
    member = tarfile.TarInfo("ping6")
    member.type, member.linkname = tarfile.LNKTYPE, "ping"
    tar.addfile(member)
EOF
run tar2sqfs -q layer.sqfs < layer.tar > tar2sqfs.log 2>&1 || { cat tar2sqfs.log >&2; changed "tar2sqfs fails"; }
for options in "--set-xattr" "--set-xattr --chown"; do
    rm -rf files; mkdir files
    run rdsquashfs -q --unpack-path / --unpack-root files --chmod $options layer.sqfs > unpack.log 2>&1 || { cat unpack.log >&2; changed "rdsquashfs fails"; }
    echo "$options: $(python3 -c 'import os; print(*sorted(os.listxattr("files/ping")), sep=" ", end=""); print(",", os.stat("files/ping").st_nlink, "link")')"
done > seen
run sqfs2tar layer.sqfs > back.tar || changed "sqfs2tar fails"
python3 - >> seen <<'EOF'
import tarfile

with tarfile.open("back.tar") as tar:
    print("sqfs2tar:", *sorted(key[13:] for key in tar.getmember("ping").pax_headers if key.startswith("SCHILY.xattr.")), end="")
    print(",", tar.getmember("ping6").linkname)
EOF
cat seen
cat > want <<'EOF'
--set-xattr: security.capability user.note, 1 link
--set-xattr --chown: user.note, 1 link
sqfs2tar: security.capability user.note, ping
EOF
cmp -s seen want || changed "files are unpacked otherwise"
echo "as stated"
