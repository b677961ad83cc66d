#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Apptainer 1.4.5 (Debian sid: apptainer 1.4.5-2), `build` of an image for another architecture. Needs root; shown on amd64.
#
# Expected: an archive whose image says "architecture": "arm64" is refused on an amd64 machine, or becomes a
#   SIF marked arm64, which Apptainer on amd64 refuses to run.
# Instead: build takes the architecture of the machine that it runs on. It says nothing, ends with 0, and marks the SIF amd64 in
#   its header, in its file system's descriptor and in the label org.label-schema.build-arch. So for docker-archive:, oci: and
#   oci-archive: alike.
# Seen: "docker-archive: header amd64, label amd64", the same for oci: and oci-archive:.
# Why it matters: the mistake shows in a job, as "exec format error". A cache of SIF files filled on a login node of one kind for
#   compute nodes of another cannot be checked by what the files say of themselves.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || { echo "needs an amd64 machine" >&2; exit 3; }
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
debian sid apptainer=1.4.5-2 coreutils dash grep mount
mkdir lab

(cd lab && python3 - <<'EOF'
import hashlib, io, json, os, tarfile

os.makedirs("layout/blobs/sha256")
OCI = "application/vnd.oci.image."


def blob(media_type, content):
    name = hashlib.sha256(content).hexdigest()
    with open("layout/blobs/sha256/" + name, "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(content)}


def pack(path, files):
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    with open(path, "rb") as file:
        return file.read()


layer = pack("layer", {"bin/sh": b""})
config = json.dumps({"architecture": "arm64", "variant": "v8", "os": "linux", "config": {},
                     "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode()
pack("docker.tar", {"layer.tar": layer, "config.json": config, "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()})
manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": blob(OCI + "config.v1+json", config),
            "layers": [blob(OCI + "layer.v1.tar", layer)]}
entry = blob(OCI + "manifest.v1+json", json.dumps(manifest).encode())
entry["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
with tarfile.open("oci.tar", "w") as tar:
    for path in ["oci-layout", "index.json", "blobs"]:
        tar.add("layout/" + path, path)
EOF
)
cat > lab/each.sh <<'EOF'
for source in docker-archive:docker.tar oci:layout oci-archive:oci.tar; do
    if apptainer -q build --force /tmp/app.sif "$source" > log 2>&1; then
        header=$(apptainer sif header /tmp/app.sif | tr -s ' ' | grep -o 'Architecture: .*')
        label=$(apptainer inspect --labels /tmp/app.sif | grep -o 'build-arch: .*')
        echo "${source%%:*}: header ${header#*: }, label ${label#*: }$(cat log)"
    else
        echo "${source%%:*}: $(cat log)"
    fi
done
EOF
inside sh each.sh > seen || { echo "apptainer does not run here" >&2; exit 3; }
cat seen
printf '%s: header amd64, label amd64\n' docker-archive oci oci-archive > want
cmp -s seen want || changed "the architecture is heeded"
echo "as stated"
