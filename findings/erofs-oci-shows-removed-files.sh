#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# erofs-utils 1.9.4 (Debian sid: erofs-utils 1.9.4-1), `mkfs.erofs --oci=f` of an image whose second layer removes files. Needs root.
#
# Expected: "Generate a full (f) … image from OCI remote source", with all layers: the files that a container of the image sees.
# Instead: whiteouts are files like any other. What an upper layer removed is there, what an opaque directory hides is there, and
#   .wh.… and .wh..wh..opq beside it, with --aufs ("Replace aufs special files with overlayfs metadata") too. Exit 0, no warning.
# Seen: "data/.wh.gone data/gone data/kept dir/.wh..wh..opq dir/new dir/old"; right is "data/kept dir/new".
# Why it matters: packages, keys and caches that a Dockerfile removed are back in the file system made of the image, and programs
#   that read all files of a folder (conf.d, plugins) run otherwise than in a container.
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
debian sid erofs-utils=1.9.4-1 docker-registry=2.8.3+ds1-3 skopeo=1.22.0+ds1-1 coreutils dash mount

mkdir -p lab root/etc; echo "127.0.0.1 localhost" > root/etc/hosts
(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile


def layer(*names):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mode = 0o755
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member)
    return raw.getvalue()


layers = [layer("data/", "data/gone", "data/kept", "dir/", "dir/old"), layer("data/.wh.gone", "dir/", "dir/.wh..wh..opq", "dir/new")]
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]}}
files = {"1.tar": layers[0], "2.tar": layers[1], "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["1.tar", "2.tar"]}]).encode()}
with tarfile.open("app.tar", "w") as tar:
    for path, content in files.items():
        member = tarfile.TarInfo(path)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
EOF
)
cat > lab/build.sh <<'EOF'
printf '%s\n' "version: 0.1" "log: {level: error}" "storage: {filesystem: {rootdirectory: /tmp/registry}}" \
    "http: {addr: '127.0.0.1:$1'}" > registry.yml
docker-registry serve registry.yml > registry.log 2>&1 & server=$!
trap 'kill "$server"' EXIT
for _ in $(seq 30); do
    skopeo --insecure-policy copy -q --dest-tls-verify=false docker-archive:app.tar "docker://localhost:$1/app:1" && break; sleep 0.2
done
for options in "" --aufs; do
    mkfs.erofs $options --oci=f,platform=linux/amd64,insecure "app$options.erofs" "localhost:$1/app:1" || exit 1
    fsck.erofs "--extract=files$options" "app$options.erofs" || exit 1
done
EOF
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
inside sh build.sh "$port" > log 2>&1 || { cat log >&2; echo "erofs-utils do not run here" >&2; exit 3; }
for options in "" --aufs; do
    echo "mkfs.erofs $options: $(cd "lab/files$options" && find . -type f | sed 's|^\./||' | LC_ALL=C sort | paste -s -d ' ')"
done > seen
cat seen
cat > want <<'EOF'
mkfs.erofs : data/.wh.gone data/gone data/kept dir/.wh..wh..opq dir/new dir/old
mkfs.erofs --aufs: data/.wh.gone data/gone data/kept dir/.wh..wh..opq dir/new dir/old
EOF
cmp -s seen want || changed "the file system has other files"
echo "as stated"
