#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# snyk-docker-plugin 9.8.0 (npm; 9.20.2 does the same), scan of a docker-archive.
#
# Expected: packages are listed that a container of the image has. What an upper layer removes is gone, however it does so.
# Instead: a plain whiteout (.wh.NAME) is heeded, but neither an opaque directory (.wh..wh..opq) nor a file that takes the
#   place of a directory: the package database that they hide is read, and its packages are reported.
# Seen: "whiteout: none", "opaque: hello@1.0", "replaced: hello@1.0"; right is none for all three.
# Why it matters: images that were slimmed by removing the package manager's folders, or built from scratch over a builder, are
#   reported for packages that they do not have, depending on how the engine wrote the removal down.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
npm snyk-docker-plugin@9.8.0

python3 - <<'EOF'
import hashlib, io, json, tarfile


def tar_of(files):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


package = (b"Package: hello\nStatus: install ok installed\nVersion: 1.0\nArchitecture: amd64\n"
           b"Maintainer: Jane Doe <jane@example.org>\nDescription: greets\n\n")
lower = tar_of({"etc/os-release": b'ID=debian\nVERSION_ID="12"\n', "var/lib/dpkg/": b"", "var/lib/dpkg/status": package})
UPPER = {"kept": {"new": b""}, "whiteout": {"var/lib/.wh.dpkg": b""},
         "opaque": {"var/lib/dpkg/": b"", "var/lib/dpkg/.wh..wh..opq": b""}, "replaced": {"var/lib/dpkg": b"a file"}}
for case, files in UPPER.items():
    layers = [lower, tar_of(files)]
    names = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + name for name in names]}}).encode()
    files = {name + ".tar": layer for name, layer in zip(names, layers)}
    image_id = hashlib.sha256(config).hexdigest()
    files |= {image_id + ".json": config, "manifest.json": json.dumps(
        [{"Config": image_id + ".json", "RepoTags": ["app:1"], "Layers": [name + ".tar" for name in names]}]).encode()}
    with open(case + ".tar", "wb") as file:
        file.write(tar_of(files))
EOF
cat > scan.cjs <<'EOF'
const { scan } = require('snyk-docker-plugin')

async function packages(path) {
    const { scanResults } = await scan({ path: 'docker-archive:' + path })
    const graphs = scanResults.flatMap((result) => result.facts).filter((fact) => fact.type === 'depGraph')
    const names = graphs.flatMap((fact) => fact.data.getDepPkgs()).map((one) => `${one.name}@${one.version}`)
    return names.join(' ') || 'none'
}

(async () => {
    for (const name of ['kept', 'whiteout', 'opaque', 'replaced']) console.log(`${name}: ${await packages(name + '.tar')}`)
})()
EOF
timeout 120 node scan.cjs > seen 2> err || changed "the scan fails: $(cat err)"
cat seen
printf '%s\n' 'kept: hello@1.0' 'whiteout: none' 'opaque: hello@1.0' 'replaced: hello@1.0' > want
cmp -s seen want || changed "other packages are reported"
echo "as stated"
