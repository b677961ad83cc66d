#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Apptainer 1.4.5 (Debian sid: apptainer 1.4.5-2), `build` from an OCI layout or archive with several images. Needs root.
#
# Expected: oci:FOLDER:TAG and oci-archive:FILE:TAG choose an image, as with skopeo and Podman; where
#   the tag means an index, the platform of this machine is taken, as it is where that index is all that the layout has.
# Instead: the tag is taken for part of the folder's name ("stat layout:one/index.json: no such file or directory"). Without one
#   it says "must specify a digest - layout contains multiple images". oci:FOLDER@DIGEST works, with the digest of a manifest:
#   that of an index is refused ("unexpected media type"). In an archive not even the digest is understood (it becomes a part of
#   the file's name), nor is the name in docker-archive:FILE:NAME, so of an archive with two images neither can be built.
# Seen: the lines that the script compares below.
# Why it matters: layouts and archives with several images are what mirrors and `skopeo copy` into one folder make. For
#   Apptainer every image needs a layout of its own.
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
debian sid apptainer=1.4.5-2 coreutils dash grep mount
mkdir lab

(cd lab && python3 - <<'EOF'
import hashlib, io, json, os, subprocess, tarfile

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


entries, archive, list_of_images = {}, {}, []
for name in ["one", "two"]:
    layer = pack("layer", {"bin/sh": b"", "which": name.encode()})
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]}}).encode()
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": blob(OCI + "config.v1+json", config),
                "layers": [blob(OCI + "layer.v1.tar", layer)]}
    entries[name] = blob(OCI + "manifest.v1+json", json.dumps(manifest).encode())
    archive |= {name + ".tar": layer, name + ".json": config}
    list_of_images.append({"Config": name + ".json", "RepoTags": [f"team/{name}:1"], "Layers": [name + ".tar"]})
pack("docker.tar", archive | {"manifest.json": json.dumps(list_of_images).encode()})
index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json",
         "manifests": [entries["one"] | {"platform": {"os": "linux", "architecture": "amd64"}}]}
entries["many"] = blob(OCI + "index.v1+json", json.dumps(index).encode())
tagged = [entry | {"annotations": {"org.opencontainers.image.ref.name": name}} for name, entry in entries.items()]
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": tagged}, file)
with tarfile.open("oci.tar", "w") as tar:
    for path in ["oci-layout", "index.json", "blobs"]:
        tar.add("layout/" + path, path)
for name, entry in entries.items():
    with open(name + ".digest", "w") as file:
        file.write(entry["digest"])
EOF
)
cat > lab/each.sh <<'EOF'
try() { # NAME SOURCE
    rm -rf /tmp/box
    if apptainer build --sandbox /tmp/box "$2" > log 2>&1; then echo "$1: built $(cat /tmp/box/which)"; else
        echo "$1: $(grep -oE 'must specify a digest|unexpected media type|no such file or directory|only a single image' log | tail -n 1)"; fi
}
try "oci:FOLDER" oci:layout
try "oci:FOLDER:TAG" oci:layout:one
try "oci:FOLDER@MANIFEST" "oci:layout@$(cat two.digest)"
try "oci:FOLDER@INDEX" "oci:layout@$(cat many.digest)"
try "oci-archive:FILE" oci-archive:oci.tar
try "oci-archive:FILE:TAG" oci-archive:oci.tar:one
try "oci-archive:FILE@MANIFEST" "oci-archive:oci.tar@$(cat two.digest)"
try "docker-archive:FILE" docker-archive:docker.tar
try "docker-archive:FILE:NAME" docker-archive:docker.tar:team/two:1
EOF
inside sh each.sh > seen || { echo "apptainer does not run here" >&2; exit 3; }
cat seen
cat > want <<'EOF'
oci:FOLDER: must specify a digest
oci:FOLDER:TAG: no such file or directory
oci:FOLDER@MANIFEST: built two
oci:FOLDER@INDEX: unexpected media type
oci-archive:FILE: must specify a digest
oci-archive:FILE:TAG: no such file or directory
oci-archive:FILE@MANIFEST: no such file or directory
docker-archive:FILE: only a single image
docker-archive:FILE:NAME: no such file or directory
EOF
cmp -s seen want || changed "apptainer chooses otherwise"
echo "as stated"
