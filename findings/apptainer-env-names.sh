#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Apptainer 1.4.5 (Debian sid: apptainer 1.4.5-2), `build` of a docker-archive and `exec`: names of ENV. Needs root.
#
# Expected: every variable of the image's Env is set, or build says which are not. Docker, Podman and runc take any name without
#   "=", and Java and Spring images do use names such as spring.profiles.active.
# Instead: variables whose name is no identifier of the shell, that is with a dot, a hyphen or a digit in front, are left out.
#   Neither build nor exec says so, and `inspect` of the image shows no trace of them either.
# Seen: of spring.profiles.active, my-setting, 1ST and plain_1 there is only plain_1; build prints no word with any of the names.
# Why it matters: the program falls back to its defaults on the cluster, and ran with the settings in the registry's image.
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
debian sid apptainer=1.4.5-2 busybox-static coreutils dash mount
mkdir lab

cp root/usr/bin/busybox lab/
(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile


def pack(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))


with open("busybox", "rb") as file:
    program = file.read()
pack("layer.tar", {"bin/sh": program, "bin/env": program, "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"})
with open("layer.tar", "rb") as file:
    layer = file.read()
names = ["spring.profiles.active", "my-setting", "1ST", "plain_1"]
config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin", *(name + "=on" for name in names)]},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
pack("app.tar", {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()})
EOF
)
cat > lab/steps.sh <<'EOF'
apptainer build --sandbox /tmp/app docker-archive:app.tar > build.log 2>&1 || { cat build.log; exit 1; }
apptainer -q exec --userns --no-mount home,cwd /tmp/app /bin/env > env 2> exec.log || { cat exec.log; exit 1; }
apptainer inspect --all /tmp/app > inspect.log 2>&1 || { cat inspect.log; exit 1; }
EOF
inside sh steps.sh || { echo "apptainer does not run here" >&2; exit 3; }
for name in spring.profiles.active my-setting 1ST plain_1; do
    grep -q "^$name=on$" lab/env && echo "$name: set" || echo "$name: not set"
    grep -qF -- "$name" lab/build.log lab/exec.log && echo "$name: named in a message" || true
done > seen
cat seen
printf '%s\n' 'spring.profiles.active: not set' 'my-setting: not set' '1ST: not set' 'plain_1: set' > want
cmp -s seen want || changed "other variables are set, or something is said of them"
if grep -q my-setting lab/inspect.log; then changed "inspect shows the variables"; fi
echo "as stated"
