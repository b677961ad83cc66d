#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Podman 5.8.6 (Debian sid: podman 5.8.6+ds1-3), `podman import --change` beside `podman build` and `podman commit --change`. Needs root.
#
# Expected: "Apply the following possible instructions to the created image", ENV and LABEL among them: the instructions of a
#   Dockerfile, with the effect that they have in one.
# Instead: import reads them its own way. Several variables in one ENV are one variable, ENV's old form is a variable whose name has
#   blanks, and quotes lose their outer pair, but keep the backslashes within. commit --change does as build does. Exit 0, no warning.
# Seen: "import: ["A=1 B=2","C two words="] {"a":"1 b=2","q":"say \\\"hi\\\""}"; build and commit have A, B and C, a and b, and say "hi".
# Why it matters: import is how a root file system (debootstrap, a flattened image) becomes an image again. Programs in it then find
#   no B and no C, and A is "1 B=2".
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
debian sid podman=5.8.6+ds1-3 coreutils dash mount

mkdir -p lab/context root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
echo content > lab/context/file; tar -C lab/context -cf lab/files.tar file
printf '%s\n' 'ENV A=1 B=2' 'ENV C two words' 'LABEL a=1 b=2' 'LABEL q="say \"hi\""' > lab/instructions
(echo FROM scratch; echo COPY file /; cat lab/instructions) > lab/context/Dockerfile
cat > lab/make.sh <<'EOF'
podman() { command podman --root /tmp/store --runroot /tmp/run --storage-driver vfs "$@" 2>> podman.log; }
while read -r line; do set -- "$@" --change "$line"; done < instructions
podman build -q -t build context >&2 && podman import -q "$@" files.tar import >&2 || exit 1
podman import -q files.tar plain >&2 && container=$(podman create plain /file) && podman commit -q "$@" "$container" commit >&2 || exit 1
for image in build commit import; do podman inspect --format '{{json .Config}}' "$image" > "$image.json" || exit 1; done
EOF
inside sh make.sh > log 2>&1 || { cat log lab/podman.log >&2; echo "Podman does not run here" >&2; exit 3; }
python3 - > seen <<'EOF'
import json

for image in ("build", "commit", "import"):
    with open(f"lab/{image}.json") as file:
        config = json.load(file)
    env = sorted(pair for pair in config["Env"] if not pair.startswith(("PATH=", "container=")))
    labels = {key: value for key, value in config["Labels"].items() if not key.startswith("io.buildah")}
    print(f"{image}: {json.dumps(env)} {json.dumps(labels, sort_keys=True)}")
EOF
cat seen
cat > want <<'EOF'
build: ["A=1", "B=2", "C=two words"] {"a": "1", "b": "2", "q": "say \"hi\""}
commit: ["A=1", "B=2", "C=two words"] {"a": "1", "b": "2", "q": "say \"hi\""}
import: ["A=1 B=2", "C two words="] {"a": "1 b=2", "q": "say \\\"hi\\\""}
EOF
cmp -s seen want || changed "the instructions have another effect"
echo "as stated"
