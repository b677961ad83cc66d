#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Charliecloud 0.45.2 (Debian sid: charliecloud-builders and -runtime 0.45.2-1), `ch-run --set-env` of a pulled image. Needs root.
#
# Expected: --set-env without a file sets the variables that the image's Env has, to the values it has there.
# Instead: ch-image writes Env into /ch/environment, a line for each as it is, and ch-run reads that file by rules of its own. A
#   value with a line feed ends in "can't parse variable: no delimiter", and nothing of the image can be run with --set-env. A
#   value that begins with a dollar sign is replaced by a variable of that name, up to the next colon: with the braces, so
#   that ${X:-def} loses its first half.
# Seen: "plain: a b", "dollar:" (empty), "default: -def}", "lines: can't parse variable".
# Why it matters: one certificate or one multi-line setting in ENV makes an image unusable; paths with variables in them are
#   shortened without a word.
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
debian sid charliecloud-builders=0.45.2-1 charliecloud-runtime=0.45.2-1 docker-registry=2.8.3+ds1-3 skopeo=1.22.0+ds1-1 openssl busybox-static coreutils dash mount
mkdir lab; echo "127.0.0.1 localhost" > root/etc/hosts
cat > lab/prepare.sh <<'EOF'
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost > openssl.log 2>&1 || { cat openssl.log; exit 1; }
printf '%s\n' "version: 0.1" "log: {level: error}" "storage: {filesystem: {rootdirectory: /tmp/registry}}" \
    "http: {addr: '127.0.0.1:$1', tls: {certificate: /lab/cert.pem, key: /lab/key.pem}}" > registry.yml
docker-registry serve registry.yml > registry.log 2>&1 & server=$!
trap 'kill "$server"' EXIT
export REQUESTS_CA_BUNDLE=/lab/cert.pem CH_IMAGE_STORAGE=/tmp/storage
for archive in *.tar; do
    for _ in $(seq 30); do
        skopeo --insecure-policy copy -q --dest-tls-verify=false "docker-archive:$archive" "docker://localhost:$1/${archive%.tar}:1" \
            > skopeo.log 2>&1 && break; sleep 0.2
    done
    ch-image pull --no-cache "localhost:$1/${archive%.tar}:1" > pull.log 2>&1 || { cat skopeo.log pull.log; exit 1; }
    mv /tmp/storage/img/localhost*"%${archive%.tar}+1" "/tmp/${archive%.tar}" || exit 1
done
EOF

cp root/usr/bin/busybox .
(cd lab && python3 - <<'EOF'
import hashlib, io, json, tarfile


def archive(path, layers, env=()):
    tars, names = [], []
    for members in layers:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, kind, value in members:
                member = tarfile.TarInfo(name)
                member.type, member.mode = kind, 0o755
                if kind == tarfile.LNKTYPE:
                    member.linkname, value = value, b""
                member.size = len(value)
                tar.addfile(member, io.BytesIO(value))
        tars.append(raw.getvalue())
        names.append(hashlib.sha256(tars[-1]).hexdigest())
    config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin", *env]}, "history": [{"created_by": "COPY"}] * len(tars),
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + name for name in names]}}
    files = {name + ".tar": content for name, content in zip(names, tars)}
    files |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
        [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": [name + ".tar" for name in names]}]).encode()}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


with open("../busybox", "rb") as file:
    program = file.read()
base = [("bin/sh", tarfile.REGTYPE, program), ("bin/env", tarfile.REGTYPE, program), ("etc/passwd", tarfile.REGTYPE, b""),
        ("etc/group", tarfile.REGTYPE, b"")]
for case, value in {"plain": "a b", "dollar": "$HOME/x", "default": "${X:-def}", "lines": "one\ntwo"}.items():
    archive(case + ".tar", [base], ["VALUE=" + value])
EOF
)
cat >> lab/prepare.sh <<'EOF'
for case in plain dollar default lines; do
    ch-run --unset-env='*' --set-env "/tmp/$case" -- /bin/env > "$case.env" 2> "$case.err" || cp "$case.err" "$case.env"
done
EOF
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
inside sh prepare.sh "$port" > log 2>&1 || { cat log >&2; echo "Charliecloud does not run here" >&2; exit 3; }
for case in plain dollar default lines; do
    echo "$case: $(sed -n "s/^VALUE=//p; s/.*\(can't parse variable\).*/\1/p" "lab/$case.env")"
done > seen
cat seen
cat > want <<'EOF'
plain: a b
dollar: 
default: -def}
lines: can't parse variable
EOF
cmp -s seen want || changed "values arrive otherwise: $(cat lab/*.err)"
echo "as stated"
