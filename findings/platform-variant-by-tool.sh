#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7, skopeo 1.22.0 and oras 1.3.3 with docker-registry 2.8.3 (Debian sid: crane 0.20.7+ds1-5, skopeo 1.22.0+ds1-1,
# oras 1.3.3-1, docker-registry 2.8.3+ds1-3): choosing an image of an index by a platform with a variant.
#
# Expected: linux/arm64 and linux/arm64/v8 are the same platform, there being no other 64-bit variant in use, and a name of
#   a platform chooses the same image with each tool.
# Instead: of an index whose entry says arm64, without a variant, skopeo gives the image for arm64/v8; crane and oras say that there
#   is none. The other way round all three find it. Of an index with arm/v6 and arm/v7 crane and oras give v6 for linux/arm (the
#   first that fits), skopeo v7.
# Seen: the table that the script compares below.
# Why it matters: the digest that was pinned with one tool is another program than the other tool mirrored, and an index without
#   variants, as older builds made them, has no image for the platform that newer configurations name.
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
debian sid crane=0.20.7+ds1-5 skopeo=1.22.0+ds1-1 oras=1.3.3-1 docker-registry=2.8.3+ds1-3
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry() { # start docker-registry on $port of the loopback interface
    printf '%s\n' "version: 0.1" "log: {level: error}" \
        "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}" "http: {addr: '127.0.0.1:$port'}" > registry.yml
    root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & server=$!
    trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
    for _ in $(seq 50); do python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2> /dev/null && return; sleep 0.1; done
    echo "the registry does not start: $(cat registry.log)" >&2; exit 3
}
registry

python3 - <<'EOF'
import gzip, hashlib, io, json, os, tarfile

os.makedirs("layout/blobs/sha256")
OCI = "application/vnd.oci.image."


def blob(media_type, value):
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    name = hashlib.sha256(content).hexdigest()
    with open("layout/blobs/sha256/" + name, "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(content)}


raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
diff_ids = ["sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()]


def image(platform):
    config = {**platform, "author": "/".join(platform.values()).removeprefix("linux/"), "config": {},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": blob(OCI + "config.v1+json", config),
                "layers": [blob(OCI + "layer.v1.tar+gzip", gzip.compress(raw.getvalue(), mtime=0))]}
    return blob(manifest["mediaType"], manifest) | {"platform": platform}


tags = []
for tag, platforms in {"plain": ["amd64", "arm64"], "v8": ["amd64", "arm64/v8"], "arm": ["arm/v6", "arm/v7"]}.items():
    entries = [image(dict(zip(["os", "architecture", "variant"], ["linux", *name.split("/")]))) for name in platforms]
    index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": entries}
    tags.append(blob(index["mediaType"], index) | {"annotations": {"org.opencontainers.image.ref.name": tag}})
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": tags}, file)
EOF
for tag in plain v8 arm; do
    run oras cp --from-oci-layout --to-plain-http "layout:$tag" "127.0.0.1:$port/app:$tag" > log 2>&1 || changed "push fails: $(cat log)"
done
author() { python3 -c 'import json, sys; text = sys.stdin.read(); print(json.loads(text)["author"] if text else "none")'; }
choose() { # TAG ARCHITECTURE [VARIANT]
    local image=127.0.0.1:$port/app:$1 platform=linux/$2${3:+/$3}
    echo "$1 $platform: crane $(run crane config --platform "$platform" "$image" 2> log | author)," \
        "oras $(run oras manifest fetch-config --plain-http --platform "$platform" "$image" 2> log | author)," \
        "skopeo $(run skopeo --override-arch "$2" ${3:+--override-variant "$3"} inspect --config --raw --tls-verify=false \
            "docker://$image" 2> log | author)"
}
{ choose plain arm64; choose plain arm64 v8; choose v8 arm64; choose v8 arm64 v8; choose arm arm; choose arm arm v7; } > seen
cat seen
cat > want <<'EOF'
plain linux/arm64: crane arm64, oras arm64, skopeo arm64
plain linux/arm64/v8: crane none, oras none, skopeo arm64
v8 linux/arm64: crane arm64/v8, oras arm64/v8, skopeo arm64/v8
v8 linux/arm64/v8: crane arm64/v8, oras arm64/v8, skopeo arm64/v8
arm linux/arm: crane arm/v6, oras arm/v6, skopeo arm/v7
arm linux/arm/v7: crane arm/v7, oras arm/v7, skopeo arm/v7
EOF
cmp -s seen want || changed "they choose otherwise"
echo "as stated"
