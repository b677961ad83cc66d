#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# skopeo 1.9.3 (Debian bookworm: skopeo 1.9.3+ds1-1+b10), docker-archive: of a compressed file.
#
# Expected: `docker save app | gzip` is read, as Docker and newer skopeo do; the code for it has been there for years, and xz, bzip2
#   and zstd go through the same lines.
# Instead: with gzip, and with gzip alone, it ends with "loading tar component manifest.json: unexpected EOF" or "archive/tar:
#   invalid tar header". `gzip -t` finds nothing wrong. gzip layers inside an uncompressed archive are no trouble. Podman 4.3.1
#   of the same release fails to load the file likewise ("payload does not match any of the supported image formats").
# Seen: "plain: read", "gz: not read", "bz2: read", "xz: read".
# Why it matters: .tar.gz is how images are handed on, and bookworm is what many clusters run. Unpack before, or use xz.
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
debian bookworm skopeo=1.9.3+ds1-1+b10

python3 - <<'EOF'
import bz2, gzip, hashlib, io, json, lzma, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()}
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as tar:
    for path, content in files.items():
        member = tarfile.TarInfo(path)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
for ending, compress in {"plain": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.items():
    with open("app.tar." + ending, "wb") as file:
        file.write(compress(packed.getvalue()))
EOF
gzip -t < app.tar.gz
for ending in plain gz bz2 xz; do
    if run skopeo inspect "docker-archive:app.tar.$ending" > out 2> "err.$ending"; then echo "$ending: read"; else echo "$ending: not read"; fi
done > seen
cat seen; tail -n 1 err.gz
printf '%s\n' 'plain: read' 'gz: not read' 'bz2: read' 'xz: read' > want
cmp -s seen want || changed "other files are read"
echo "as stated"
