#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker 7.2.0 (PyPI, docker-py), `exclude_paths` (what `images.build(path=…)` packs), beside Podman 5.8.6 (Debian sid: podman
# 5.8.6+ds1-3). Needs root.
#
# Expected: a pattern of .dockerignore leaves out of the build context what it does for `docker build` and `podman build`: "Matching is done
#   using Go's filepath.Match rules", which has [^…] for other characters and a backslash that takes a character as it stands.
# Instead: docker-py knows neither. It takes ^ for a character of the list, and a backslash for a character of the name; it takes ! for "not",
#   which Go does not. Nothing is said about a pattern that matches nothing.
# Seen: "[^a].key", "\#notes" and "q\?x" leave the file out for Podman, and not for docker-py; "[!a].key" the other way round.
# Why it matters: what .dockerignore keeps out of images (keys, notes, data) is in those that a script in Python builds from the same folder.
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
debian sid podman=5.8.6+ds1-3 coreutils dash mount
pypi docker==7.2.0

mkdir -p lab root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
cat > cases <<'EOF'
[^a].key b.key
\#notes #notes
q\?x q?x
[!a].key b.key
*.key b.key
EOF
number=0
while read -r pattern name; do
    number=$((number + 1)); mkdir -p "lab/$number/context"
    printf '%s\n' "$pattern" > "lab/$number/context/.dockerignore"; echo content > "lab/$number/context/$name"
    printf '%s\n' 'FROM scratch' 'COPY . /' > "lab/$number/Dockerfile"
done < cases
cat > lab/build.sh <<'EOF'
podman() { command podman --root /tmp/store --runroot /tmp/run --storage-driver vfs "$@" 2>> podman.log; }
for number in 1 2 3 4 5; do
    podman build -q -t "case$number" -f "$number/Dockerfile" "$number/context" >&2 || exit 1
    cp -r "$(podman image mount "case$number")" "$number/files" || exit 1
done
EOF
inside sh build.sh > log 2>&1 || { cat log lab/podman.log >&2; echo "Podman does not run here" >&2; exit 3; }
venv/bin/python -W ignore - > seen <<'EOF'
import os

from docker.utils import exclude_paths

with open("cases") as file:
    for number, line in enumerate(file, 1):
        pattern, name = line.split()
        packed = name in exclude_paths(f"lab/{number}/context", [pattern])
        built = os.path.exists(f"lab/{number}/files/{name}")
        print(f"{pattern}: docker-py {'packs' if packed else 'leaves out'}, podman {'packs' if built else 'leaves out'} {name}")
EOF
cat seen
cat > want <<'EOF'
[^a].key: docker-py packs, podman leaves out b.key
\#notes: docker-py packs, podman leaves out #notes
q\?x: docker-py packs, podman leaves out q?x
[!a].key: docker-py leaves out, podman packs b.key
*.key: docker-py leaves out, podman leaves out b.key
EOF
cmp -s seen want || changed "files are packed otherwise"
echo "as stated"
