#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# regshape 0.1.1 (PyPI), `regshape layout validate` of a layout as skopeo 1.9.3 writes it.
#
# Expected: valid. The specification makes mediaType of an index optional, and index.json of a layout says what it is by its name.
# Instead: "index.json … is not a valid OCI Image Index : Unknown manifest mediaType : got ''", exit 1; `layout push` says the same.
#   With the field the same layout is valid.
# Seen: "without mediaType: exit 1", "with mediaType: exit 0".
# Why it matters: a gate that validates what mirrors deliver turns sound images away, by the version of the tool that wrote them.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi regshape==0.1.1

python3 - <<'EOF'
import gzip, hashlib, io, json, os, tarfile

OCI = "application/vnd.oci.image."
for folder in ["without", "with"]:
    os.makedirs(folder + "/blobs/sha256")

    def blob(media_type, content):
        name = hashlib.sha256(content).hexdigest()
        with open(f"{folder}/blobs/sha256/{name}", "wb") as file:
            file.write(content)
        return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(content)}

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()]}}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                "config": blob(OCI + "config.v1+json", json.dumps(config).encode()),
                "layers": [blob(OCI + "layer.v1.tar+gzip", gzip.compress(raw.getvalue()))]}
    entry = blob(manifest["mediaType"], json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    index = {"schemaVersion": 2, "manifests": [entry]}
    if folder == "with":
        index["mediaType"] = OCI + "index.v1+json"
    with open(folder + "/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    with open(folder + "/index.json", "w") as file:
        json.dump(index, file)
EOF
for folder in without with; do
    code=0; venv/bin/regshape layout validate --path "$folder" > "$folder.out" 2>&1 || code=$?
    echo "$folder mediaType: exit $code"
done > seen
cat seen; cat without.out
printf '%s\n' 'without mediaType: exit 1' 'with mediaType: exit 0' > want
cmp -s seen want && grep -q "Unknown manifest mediaType" without.out || changed "it validates otherwise"
echo "as stated"
