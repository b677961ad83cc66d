#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# umoci 0.6.0 (Debian sid: umoci 0.6.0+ds-1+b1; 0.4.7 of trixie does the same), `umoci config` and `umoci repack`.
#
# Expected: `umoci config --author` changes the author, and everything else stays, as the specification wants unknown fields
#   of a config or manifest to be left alone.
# Instead: umoci writes again what its own structs hold. Healthcheck, Shell, OnBuild and any other field that OCI does not
#   define are gone. Exit 0, no word. A repack without any change of files does the same.
# Seen: "lost as edited: Healthcheck OnBuild Shell x-data-release", and the same for repack.
# Why it matters: an image that gets a label in a pipeline loses its health check and the record that a platform put there.
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
config = {"architecture": "amd64", "os": "linux", "x-data-release": "2026.1",
          "config": {"Cmd": ["/hello"], "Labels": {"kept": "yes"}, "Healthcheck": {"Test": ["CMD", "/hello"]},
                     "Shell": ["/bin/bash", "-c"], "OnBuild": ["RUN /hello"]},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
          "history": [{"created_by": "COPY hello"}]}
oci = "application/vnd.oci.image."
manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
            "config": blob(oci + "config.v1+json", json.dumps(config).encode()),
            "layers": [blob(oci + "layer.v1.tar+gzip", gzip.compress(layer))]}
entry = blob(manifest["mediaType"], json.dumps(manifest).encode())
entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
EOF

fields() { # TAG: names of the config's fields, those of its "config" too
    python3 - "$1" <<'EOF'
import json, sys

def read(digest):
    return json.load(open("layout/blobs/sha256/" + digest.split(":")[1]))

for entry in json.load(open("layout/index.json"))["manifests"]:
    if entry["annotations"]["org.opencontainers.image.ref.name"] == sys.argv[1]:
        config = read(read(entry["digest"])["config"]["digest"])
        print("\n".join(sorted({*config, *config["config"]} - {"author", "created"})))
EOF
}
fields 1 > before
root/usr/bin/umoci config --image layout:1 --tag edited --author "A. Curator" || changed "config fails"
root/usr/bin/umoci unpack --image layout:1 bundle > unpack.log 2>&1 || changed "unpack fails: $(cat unpack.log)"
root/usr/bin/umoci repack --image layout:packed bundle > repack.log 2>&1 || changed "repack fails: $(cat repack.log)"
for step in edited packed; do
    lost=$(fields "$step" | LC_ALL=C comm -23 before - | paste -s -d ' ')
    echo "lost as $step: $lost"
    [ "$lost" = "Healthcheck OnBuild Shell x-data-release" ] || changed "lost: $lost"
done
echo "as stated"
