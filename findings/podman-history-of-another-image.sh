#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Podman 5.8.6 (Debian sid: podman 5.8.6+ds1-3), `podman history`. Needs root.
#
# Expected: the topmost line of `podman history NAME` has the image's own ID, as in Docker, and in the JSON its own tags.
# Instead: Podman looks for an image by the topmost layer, and takes the first in the store that has it. Images that differ in
#   their configuration alone (another label, command or date, as two builds of one file system) have that layer in common; then
#   history prints the ID of the wrong one, and "tags" holds the names of all of them.
# Seen: "second has another ID than its history localhost/first:1,localhost/second:1".
# Why it matters: a script that takes ID or tags from history's JSON deletes, signs or stores another image than was named.
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
inside() { # COMMAND ARGUMENT...: run a command in a system of its own made of $tmp/root, with $tmp/lab as /lab
    mkdir -p root/lab root/proc root/dev root/sys root/tmp root/run root/root root/var/tmp root/etc lab
    [ -e root/etc/passwd ] || { echo root:x:0:0:root:/root:/bin/sh > root/etc/passwd; echo root:x:0: > root/etc/group; }
    for name in bin lib lib64 sbin; do [ -e "root/$name" ] || ln -s "usr/$name" "root/$name"; done
    [ -e root/bin/sh ] || ln -s dash root/bin/sh
    touch root/etc/resolv.conf root/etc/hosts root/etc/localtime
    unshare --mount --propagation private sh -c 'cd "$1" && mount --rbind root root && mount --bind lab root/lab && cd root \
        && for name in proc dev sys; do mount --rbind "/$name" "$name" || exit 3; done && mount -t tmpfs none tmp && mkdir -p .outside \
        && pivot_root . .outside && cd /lab && umount -l /.outside && shift && exec env -i PATH=/usr/bin:/usr/sbin HOME=/root "$@"' sh "$tmp" "$@"
}
debian sid podman=5.8.6+ds1-3 netavark coreutils dash mount
mkdir lab

(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
for name in ["first", "second"]:
    config = {"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": {"Labels": {"name": name}},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
              "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "COPY hello"}]}
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": [name + ":1"], "Layers": ["layer.tar"]}]).encode()}
    with tarfile.open(name + ".tar", "w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
EOF
)
mkdir -p root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
cat > lab/steps.sh <<'EOF'
podman() { /usr/bin/podman --root /tmp/store --runroot /tmp/run --storage-driver vfs "$@"; }
podman load -q -i first.tar && podman load -q -i second.tar || exit 1
for name in first second; do
    podman inspect --format '{{.Id}}' "$name:1" > "$name.id"
    podman history --no-trunc --format json "$name:1" > "$name.json" || exit 1
done
EOF
inside sh steps.sh > lab/log 2>&1 || { cat lab/log >&2; echo "Podman does not run here" >&2; exit 3; }
(cd lab && python3 - <<'EOF') > seen
import json

for name in ["first", "second"]:
    with open(name + ".id") as ids, open(name + ".json") as history:
        own, top = ids.read().strip(), json.load(history)[0]
    print(name, "has its own ID" if top["id"] == own else "has another ID than its history", ",".join(sorted(top["tags"])))
EOF
cat seen
[ "$(grep -c 'has another ID than its history localhost/first:1,localhost/second:1' seen)" = 1 ] || changed "see above"
echo "as stated"
