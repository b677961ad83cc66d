#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Podman 5.8.6 (Debian sid: podman 5.8.6+ds1-3), `podman images` and its filters on images without a date. Needs root.
#
# Expected: an image whose config has no "created", or the year 1 as Go programs write for none (crane append does), is shown without
#   a date, or as very old; `podman inspect` and `podman images` agree.
# Instead: `podman images` shows the moment at which the image came into this store, in its table and JSON, and for the filter
#   until=. inspect says 0001-01-01, or nothing. 1970-01-01 is shown as such by both.
# Seen: "none: images now, inspect <nil>", "year: images now, inspect 0001", "epoch: images 1970, inspect 1970", and
#   --filter until=24h lists that one alone.
# Why it matters: the same image has another age on every node, so that clean-up by age keeps it here and removes it there, and a
#   list sorted by date puts a build of years ago first.
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
for name, date in {"none": None, "year": "0001-01-01T00:00:00Z", "epoch": "1970-01-01T00:00:00Z"}.items():
    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
    if date:
        config["created"] = date
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
for name in none year epoch; do
    podman load -q -i "$name.tar" || exit 1
    podman images --format '{{.CreatedAt}}' "localhost/$name" > "$name.images"
    podman inspect --format '{{.Created}}' "$name:1" > "$name.inspect"
done
podman images --filter until=24h --format '{{.Repository}}' > old
EOF
inside sh steps.sh > lab/log 2>&1 || { cat lab/log >&2; echo "Podman does not run here" >&2; exit 3; }
this=$(date -u +%Y)
for name in none year epoch; do
    images=$(cut -c 1-4 "lab/$name.images"); [ "$images" != "$this" ] || images=now
    echo "$name: images $images, inspect $(cut -c 1-5 "lab/$name.inspect" | tr -d -)"
done > seen
echo "older than a day: $(paste -s -d ' ' lab/old)" >> seen
cat seen
cat > want <<'EOF'
none: images now, inspect <nil>
year: images now, inspect 0001
epoch: images 1970, inspect 1970
older than a day: localhost/epoch
EOF
cmp -s seen want || changed "dates are shown otherwise"
echo "as stated"
