#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-squash 1.2.2 (PyPI) with Docker 28.5.2 (Debian sid: docker.io 28.5.2+dfsg4-5), images with hard links. Needs root.
#
# Expected: "Docker layer squashing tool": the squashed image has the files of the image, in one layer. A file with two names in a lower
#   layer keeps its content under the second name when an upper layer replaces or removes the first, as in every engine.
# Instead: the link is kept as a link to the first name, and now gets the upper layer's content; where the first name was removed, the
#   second is left out too. Exit 0, "Done", no warning.
# Seen: "over: a=NEW b=NEW" (right: b=OLD), "gone: nothing" (right: b=OLD).
# Why it matters: conda and package managers make hard links by the thousand. A squashed image lacks files of other packages, or has other
#   content in them than the image that was tested.
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
debian sid docker.io=28.5.2+dfsg4-5 docker-cli=28.5.2+dfsg4-5 containerd runc coreutils dash mount
pypi docker-squash==1.2.2

mkdir -p lab
cat > lab/serve.sh <<'EOF'
echo $$ > pid
exec dockerd --data-root /tmp/docker --exec-root /tmp/exec --pidfile /tmp/docker.pid -H unix:///lab/socket --bridge none --iptables=false \
    --ip6tables=false --storage-driver vfs
EOF
trap '[ ! -e lab/pid ] || { kill "$(cat lab/pid)" 2> /dev/null; wait; }; rm -rf "$tmp"' EXIT
inside sh serve.sh > service.log 2>&1 &
for _ in $(seq 300); do ! curl -s --unix-socket lab/socket http://docker/_ping > /dev/null || break; sleep 0.1; done
[ -S lab/socket ] || { cat service.log >&2; echo "Docker does not run here" >&2; exit 3; }
export DOCKER_HOST=unix://$tmp/lab/socket

cat > images.py <<'EOF'
import hashlib, io, json, sys, tarfile

import docker


def layer(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.LNKTYPE:
                member.linkname, value = value, ""
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value.encode()))
    return raw.getvalue()


def archive(name, layers):
    paths = [f"{number}.tar" for number in range(len(layers))]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "created": "2020-01-01T00:00:00Z",
              "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "COPY"}] * len(layers),
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers]}}
    files = dict(zip(paths, layers)) | {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": [name + ":1"], "Layers": paths}]).encode()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


client = docker.from_env()
if sys.argv[1] == "load":
    base = layer([("data", tarfile.DIRTYPE, ""), ("data/a", tarfile.REGTYPE, "OLD"), ("data/b", tarfile.LNKTYPE, "data/a")])
    client.images.load(archive("over", [base, layer([("data/a", tarfile.REGTYPE, "NEW")])]))
    client.images.load(archive("gone", [base, layer([("data/.wh.a", tarfile.REGTYPE, "")])]))
else:
    for name in ("over:1", "over:squashed", "gone:1", "gone:squashed"):
        container = client.containers.create(name, "/none")
        raw = io.BytesIO(b"".join(container.export()))
        container.remove()
        with tarfile.open(fileobj=raw) as tar:
            names = [one.name for one in tar if one.name in ("data/a", "data/b")]
            print(name, *(f"{one[5:]}={tar.extractfile(one).read().decode()}" for one in sorted(names)) if names else ["nothing"])
EOF
venv/bin/python images.py load
for name in over gone; do
    venv/bin/docker-squash -t "$name:squashed" "$name:1" > "$name.log" 2>&1 || { cat "$name.log" >&2; changed "docker-squash fails"; }
done
venv/bin/python images.py show > seen
cat seen
cat > want <<'EOF'
over:1 a=NEW b=OLD
over:squashed a=NEW b=NEW
gone:1 b=OLD
gone:squashed nothing
EOF
cmp -s seen want || changed "the squashed images have other files"
echo "as stated"
