#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# podman 5.8.0 (PyPI, podman-py) with Podman 5.8.6 (Debian sid: podman 5.8.6+ds1-3), `client.images.get_registry_data`. Needs root.
#
# Expected: "Returns registry data for an image": what the registry has under the name now, as docker-py's method of that name
#   tells; so that one can see whether a newer image is there before pulling.
# Instead: the method asks no registry. It inspects the image of that name in the local store, and raises ImageNotFound for one
#   that the registry alone has. RegistryData.id is the local image's ID.
# Seen: after another image was pushed as app:1 the answer is still the old image's; app:2 of the registry is "ImageNotFound".
# Why it matters: an updater that compares the local image with the registry's never sees an update, and nothing tells it why.
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
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
debian sid podman=5.8.6+ds1-3 docker-registry=2.8.3+ds1-3 skopeo=1.22.0+ds1-1 netavark coreutils dash mount
pypi podman==5.8.0

mkdir -p lab root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
echo "127.0.0.1 localhost" > root/etc/hosts
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile

for name in ("old", "new"):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    layer = raw.getvalue()
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": [name + ":1"], "Layers": ["layer.tar"]}]).encode()}
    with tarfile.open(name + ".tar", "w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
EOF
)
cat > lab/serve.sh <<'EOF'
printf '%s\n' "version: 0.1" "log: {level: error}" "storage: {filesystem: {rootdirectory: /tmp/registry}}" \
    "http: {addr: '127.0.0.1:$1'}" > registry.yml
docker-registry serve registry.yml > registry.log 2>&1 & echo $! > pids
copy() { skopeo --insecure-policy copy -q --src-tls-verify=false --dest-tls-verify=false "$1" "$2"; }
for _ in $(seq 30); do copy docker-archive:old.tar "docker://localhost:$1/app:1" > skopeo.log 2>&1 && break; sleep 0.2; done
podman --root /tmp/store --runroot /tmp/run --storage-driver vfs pull -q --tls-verify=false "localhost:$1/app:1" >&2
for tag in 1 2; do copy docker-archive:new.tar "docker://localhost:$1/app:$tag" >&2; done
skopeo inspect --tls-verify=false --raw "docker://localhost:$1/app:1" > manifest.json
echo $$ >> pids
exec podman --root /tmp/store --runroot /tmp/run --storage-driver vfs system service --time 60 unix:///lab/socket
EOF
trap 'for pid in $(cat lab/pids 2> /dev/null); do kill "$pid" 2> /dev/null || :; done; rm -rf "$tmp"' EXIT
inside sh serve.sh "$port" > service.log 2>&1 &
for _ in $(seq 200); do [ ! -S lab/socket ] || break; sleep 0.1; done
[ -S lab/socket ] || { cat service.log >&2; echo "Podman does not run here" >&2; exit 3; }

venv/bin/python - "localhost:$port/app" > seen <<'EOF'
import json, os, sys

import podman

client = podman.PodmanClient(base_url="unix://" + os.path.abspath("lab/socket"))
local = client.images.get(sys.argv[1] + ":1").id
with open("lab/manifest.json") as file:
    remote = json.load(file)["config"]["digest"].removeprefix("sha256:")
print("the registry has", "another image than the store" if local != remote else "the image of the store")
seen = client.images.get_registry_data(sys.argv[1] + ":1").id
print("app:1:", {local: "the image of the store", remote: "the image of the registry"}.get(seen, seen))
try:
    print("app:2:", client.images.get_registry_data(sys.argv[1] + ":2").id)
except podman.errors.ImageNotFound as error:
    print("app:2:", type(error).__name__)
EOF
cat seen
cat > want <<'EOF'
the registry has another image than the store
app:1: the image of the store
app:2: ImageNotFound
EOF
cmp -s seen want || changed "podman-py answers otherwise"
echo "as stated"
