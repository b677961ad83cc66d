#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker 7.2.0 (PyPI) with Podman 5.8.6 (Debian sid: podman 5.8.6+ds1-3), `client.images.load`. Needs root.
#
# Expected: load of an archive with two images returns both, as it does with Docker, since Podman speaks Docker's API.
# Instead: Podman answers "Loaded image: localhost/one:1,localhost/two:1" in one line, where Docker writes a line for each. The
#   library takes that for one name, asks for an image of that name, and raises APIError (500: invalid reference format). Both
#   images are in the store all the same. An archive with one image of one name works. Podman 4.3.1 does the same.
# Seen: "one image: ['localhost/one:1']", "two images: APIError", "in the store: localhost/one:1 localhost/two:1".
# Why it matters: a caller that retries or reports what failed to load is wrong in both; archives with several images or names are
#   what backups of a node are.
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
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
debian sid podman=5.8.6+ds1-3 netavark coreutils dash mount
pypi docker==7.2.0

mkdir -p lab root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
cat > lab/serve.sh <<'EOF'
echo $$ > pid
exec podman --root /tmp/store --runroot /tmp/run --storage-driver vfs system service --time 60 unix:///lab/socket
EOF
inside sh serve.sh > service.log 2>&1 &
trap '[ ! -e lab/pid ] || kill "$(cat lab/pid)" 2> /dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 100); do [ ! -S lab/socket ] || break; sleep 0.1; done
[ -S lab/socket ] || { cat service.log >&2; echo "Podman does not run here" >&2; exit 3; }

venv/bin/python - > seen <<'EOF'
import hashlib, io, json, os, tarfile

import docker


def archive(*names):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    layer, files, images = raw.getvalue(), {}, []
    for name in names:
        files[name + ".json"] = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
        images.append({"Config": name + ".json", "RepoTags": [name + ":1"], "Layers": ["layer.tar"]})
    files |= {"layer.tar": layer, "manifest.json": json.dumps(images).encode()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


client = docker.DockerClient(base_url="unix://" + os.path.abspath("lab/socket"))
for count, names in {"one image": ["one"], "two images": ["one", "two"]}.items():
    try:
        seen = [tag for image in client.images.load(archive(*names)) for tag in image.tags]
    except docker.errors.APIError as error:
        seen = type(error).__name__
    print(f"{count}: {seen}")
print("in the store:", *sorted(tag for image in client.images.list() for tag in image.tags))
EOF
cat seen
cat > want <<'EOF'
one image: ['localhost/one:1']
two images: APIError
in the store: localhost/one:1 localhost/two:1
EOF
cmp -s seen want || changed "images are loaded otherwise"
echo "as stated"
