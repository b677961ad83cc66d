#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# umoci 0.6.0 (Debian sid: umoci 0.6.0+ds-1+b1; 0.4.7 of trixie does the same), `umoci gc` of an OCI layout that holds an
# image with a Docker schema 2 manifest.
#
# Expected: blobs that a tagged image needs stay, or gc refuses what it cannot read. An OCI layout may hold manifests of any
#   type; `oras cp`, `crane pull --format=oci` and regclient write Docker's just as they came from the registry.
# Instead: gc keeps the manifest that the index names, does not look into it, and removes the config and all layers. Exit 0.
# Seen: "blobs before: 3, after: 1".
# Why it matters: most images of older registries have that type. One gc in a shared layout folder empties them, while `umoci ls`
#   lists them as before.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
debian() { # SUITE PACKAGE=VERSION...: unpack pinned packages into $tmp/root
    local suite=$1; shift
    mkdir -p apt/lists/partial apt/cache/archives/partial; : > apt/status
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') $suite main" > apt/sources
    export APT_CONFIG=$tmp/apt/conf
    printf '%s "%s";\n' Dir::Etc::sourcelist "$tmp/apt/sources" Dir::Etc::sourceparts - Dir::State::lists "$tmp/apt/lists" \
        Dir::State::status "$tmp/apt/status" Dir::Cache "$tmp/apt/cache" APT::Sandbox::User root > apt/conf
    apt-get -qq update && (cd apt && apt-get -qq download "$@") || { echo "cannot fetch $*" >&2; exit 3; }
    for package in apt/*.deb; do dpkg -x "$package" root; done
}
debian sid umoci=0.6.0+ds-1+b1

python3 - <<'EOF'
import gzip, hashlib, io, json, os, tarfile

os.makedirs("layout/blobs/sha256")


def blob(media_type, content):
    name = hashlib.sha256(content).hexdigest()
    with open("layout/blobs/sha256/" + name, "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(content)}


raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
docker = "application/vnd.docker."
manifest = {"schemaVersion": 2, "mediaType": docker + "distribution.manifest.v2+json",
            "config": blob(docker + "container.image.v1+json", json.dumps(config).encode()),
            "layers": [blob(docker + "image.rootfs.diff.tar.gzip", gzip.compress(layer))]}
entry = blob(manifest["mediaType"], json.dumps(manifest).encode())
entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
EOF

before=$(ls layout/blobs/sha256 | wc -l)
root/usr/bin/umoci gc --layout layout || changed "gc refuses the layout"
after=$(ls layout/blobs/sha256 | wc -l)
echo "blobs before: $before, after: $after"
[ "$before" = 3 ] && [ "$after" = 1 ] || changed "gc left $after of $before blobs"
[ "$(root/usr/bin/umoci ls --layout layout)" = 1 ] || changed "the tag is not listed any more"
echo "as stated"
