#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# container-inspector 33.1.0 (PyPI; ScanCode reads images with it), an OCI image layout.
#
# Expected: layouts are read; the package announces OCI images beside Docker's, and has code for them.
# Instead: the code asks each descriptor for "mediatype" in lower case, where the specification has mediaType, so that every
#   layout ends in KeyError: 'mediatype', those of skopeo too. With the key misspelt in the same way the layout is read.
# Seen: "mediaType: KeyError 'mediatype'", "mediatype: 1 image".
# Why it matters: a licence scan of a mirror kept as layouts is no scan. Convert to docker-archive first.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi container-inspector==33.1.0

venv/bin/python - > seen 2> err <<'EOF' || changed "it ends otherwise: $(tail -n 1 err)"
import gzip, hashlib, io, json, os, tarfile

from container_inspector.image import Image

OCI = "application/vnd.oci.image."


def write_layout(folder, key):
    os.makedirs(folder + "/blobs/sha256")

    def blob(media_type, content, key="mediaType"):
        name = hashlib.sha256(content).hexdigest()
        with open(f"{folder}/blobs/sha256/{name}", "wb") as file:
            file.write(content)
        return {key: media_type, "digest": "sha256:" + name, "size": len(content)}

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()]}}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                "config": blob(OCI + "config.v1+json", json.dumps(config).encode()),
                "layers": [blob(OCI + "layer.v1.tar+gzip", gzip.compress(raw.getvalue()))]}
    with open(folder + "/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    with open(folder + "/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [blob(OCI + "manifest.v1+json", json.dumps(manifest).encode(), key)]}, file)


for key in ["mediaType", "mediatype"]:
    write_layout(key, key)
    try:
        seen = f"{len(Image.get_images_from_dir(key))} image"
    except Exception as error:
        seen = f"{type(error).__name__} {error}"
    print(f"{key}: {seen}")
EOF
cat seen
[ "$(paste -s -d , seen)" = "mediaType: KeyError 'mediatype',mediatype: 1 image" ] || changed "a layout ends otherwise"
echo "as stated"
