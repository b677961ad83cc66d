#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7 (Debian sid: crane 0.20.7+ds1-5), `crane export` of a layer with an opaque directory.
#
# Expected: the marker .wh..wh..opq of the OCI specification hides all that lower layers have in that directory, as in
#   every engine, and as a plain whiteout (.wh.NAME) does with crane.
# Instead: crane takes the marker for a whiteout of a file that is called ".wh..opq", and so for nothing. The hidden files are in
#   the result. Exit 0.
# Seen: "cache/new cache/old"; right is "cache/new". The plain whiteout beside it works: "logs/old" is gone.
# Why it matters: overlayfs writes such markers whenever a directory was removed and made anew in one step (rm -rf cache && mkdir
#   cache), so engines that build on it commit them. Removed data is back in what was exported.
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
debian sid crane=0.20.7+ds1-5

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


layers = [tar_of({"cache/": b"", "cache/old": b"", "logs/": b"", "logs/old": b""}),
          tar_of({"cache/": b"", "cache/.wh..wh..opq": b"", "cache/new": b"", "logs/": b"", "logs/.wh.old": b""})]
names = [hashlib.sha256(layer).hexdigest() for layer in layers]
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + name for name in names]}}
files = {name + ".tar": layer for name, layer in zip(names, layers)}
files["config.json"] = json.dumps(config).encode()
files["manifest.json"] = json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": [name + ".tar" for name in names]}]).encode()
with open("app.tar", "wb") as file:
    file.write(tar_of(files))
EOF

root/usr/bin/crane export - out.tar < app.tar || changed "export fails"
seen=$(tar -tf out.tar | grep -E '/.+' | sort | paste -s -d ' ')
echo "$seen"
[ "$seen" = "cache/new cache/old" ] || changed "export has $seen"
echo "as stated"
