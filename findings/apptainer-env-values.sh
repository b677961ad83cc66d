#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Apptainer 1.4.5 (Debian sid: apptainer 1.4.5-2), `build` of a docker-archive and `exec`: values of ENV. Needs root.
#
# Expected: the values of an image's Env are what a program sees, byte for byte, as with Docker and Podman.
# Instead: build writes them into a shell script with one escape too many, and the shell that reads the script at each start
#   undoes the wrong ones. Only letters, blanks and harmless punctuation arrive as they were.
# Seen: {"a": 1} arrives as {\"a\": 1}; $HOME/x as \/root/x (the variable is expanded, at the user's side); a\b as a\\b; a line
#   feed as the two characters \n; and with one value in backquotes the whole Env is dropped, PATH too, with a warning
#   ("reached EOF without closing quote") and exit 0.
# Why it matters: settings in JSON, regular expressions, passwords' file patterns and certificates in ENV work with Docker and
#   not on the cluster that runs the same image as SIF. A staging tool can warn of such values before a job fails.
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

VALUES = {"json": '{"a": 1}', "dollar": "$HOME/x", "backslash": "a\\b", "lines": "one\ntwo", "backquote": "`x`", "plain": "a b;c#d!e"}


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
for case, value in VALUES.items():
    config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin:/opt/bin", "VALUE=" + value, "LAST=1"]},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
    pack(case + ".tar", {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()})
EOF
)
cat > lab/each.sh <<'EOF'
for case in json dollar backslash lines backquote plain; do
    apptainer -q build --sandbox "/tmp/$case" "docker-archive:$case.tar" > "$case.log" 2>&1 || { cat "$case.log"; exit 1; }
    apptainer -q exec --userns --no-mount home,cwd "/tmp/$case" /bin/env -0 > "$case.env" 2> "$case.err" || { cat "$case.err"; exit 1; }
done
EOF
inside sh each.sh || { echo "apptainer does not run here" >&2; exit 3; }

(cd lab && python3 - <<'EOF') > seen
for case in ["json", "dollar", "backslash", "lines", "backquote", "plain"]:
    with open(case + ".env") as file:
        seen = dict(pair.split("=", 1) for pair in file.read().split("\0") if "=" in pair)
    print(case, repr(seen.get("VALUE")), "PATH kept" if "/opt/bin" in seen["PATH"] else "PATH lost")
EOF
cat seen
cat > want <<'EOF'
json '{\\"a\\": 1}' PATH kept
dollar '\\/root/x' PATH kept
backslash 'a\\\\b' PATH kept
lines 'one\\ntwo' PATH kept
backquote None PATH lost
plain 'a b;c#d!e' PATH kept
EOF
cmp -s seen want || changed "values arrive otherwise"
echo "as stated"
