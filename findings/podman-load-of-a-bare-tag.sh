#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Podman 5.8.6 and skopeo 1.22.0 (Debian sid: podman 5.8.6+ds1-3, skopeo 1.22.0+ds1-1), `podman load` of an OCI archive whose image has
# a tag as its name. Needs root.
#
# Expected: the OCI specification's example of org.opencontainers.image.ref.name is a tag, and `skopeo copy … oci-archive:FILE:1.0`
#   writes just that. `podman load` gives the image no name, or one with the tag 1.0.
# Instead: it takes the tag for the repository, and adds the tag latest. A second image of another program with the same tag takes
#   the name away from the first, which is left without any. Exit 0, no warning.
# Seen: "Loaded image: localhost/1.0:latest" for each of two images; then the name is the second one's, and the first has no name.
# Why it matters: `podman run localhost/1.0` is whatever was loaded last, and `podman image prune` removes the first image.
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
debian sid podman=5.8.6+ds1-3 skopeo=1.22.0+ds1-1 coreutils dash mount

mkdir -p lab root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile

for name in ("first", "second"):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    layer = raw.getvalue()
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"program": name}},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": [name + ":1.0"], "Layers": ["layer.tar"]}]).encode()}
    with tarfile.open(name + ".tar", "w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
EOF
)
cat > lab/load.sh <<'EOF'
podman() { command podman --root /tmp/store --runroot /tmp/run --storage-driver vfs "$@" 2>> podman.log; }
for program in first second; do
    skopeo --insecure-policy copy -q "docker-archive:$program.tar" "oci-archive:$program.oci.tar:1.0" 2>> podman.log || exit 1
    echo "$program: $(podman load -q -i "$program.oci.tar")"
done
podman images --format '{{.Names}} {{.Labels.program}}' | sort
EOF
inside sh load.sh > seen || { cat lab/podman.log >&2; echo "Podman does not run here" >&2; exit 3; }
cat seen
cat > want <<'EOF'
first: Loaded image: localhost/1.0:latest
second: Loaded image: localhost/1.0:latest
[] first
[localhost/1.0:latest] second
EOF
cmp -s seen want || changed "podman names the images otherwise"
echo "as stated"
