#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# container-inspector 33.1.0 (PyPI), `container_inspector_squash` of images with hard links, and with a file in place of a directory.
#
# Expected: "extract and squash that image …, merging all layers in a single rootfs-like structure": the files that a container of the
#   image sees.
# Instead: all names of a file but the first are left out, in an image of one layer too; the command has no option for it (the library's
#   rebuild_rootfs has skip_symlinks, which is on and means hard links too). A file that an upper layer puts in place of a directory lands
#   within that directory, whose files stay. Exit 0, no warning.
# Seen: "links: data/a=A" (right: and data/b=A), "replaced: data/data=NEW data/old=OLD" (right: data=NEW).
# Why it matters: ScanCode and others scan what this library unpacks. Further names of hard links (git, perl, conda packages) are not
#   looked at, and files that are gone are reported.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi container-inspector==33.1.0

python3 - <<'EOF'
import hashlib, io, json, os, tarfile


def layer(*members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.LNKTYPE:
                member.linkname, value = value, ""
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value.encode()))
    return raw.getvalue()


def save(folder, *layers):
    digests = [hashlib.sha256(one).hexdigest() for one in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + one for one in digests]}}).encode()
    path = hashlib.sha256(config).hexdigest() + ".json"
    files = {one + ".tar": content for one, content in zip(digests, layers)} | {path: config, "manifest.json": json.dumps(
        [{"Config": path, "RepoTags": ["app:1"], "Layers": [one + ".tar" for one in digests]}]).encode()}
    os.mkdir(folder)
    for name, content in files.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(content)


data = ("data", tarfile.DIRTYPE, "")
save("links", layer(data, ("data/a", tarfile.REGTYPE, "A"), ("data/b", tarfile.LNKTYPE, "data/a")))
save("replaced", layer(data, ("data/old", tarfile.REGTYPE, "OLD")), layer(("data", tarfile.REGTYPE, "NEW")))
EOF
for case in links replaced; do
    mkdir "$case.out"
    venv/bin/container_inspector_squash "$case" "$case.out" > squash.log 2>&1 || { cat squash.log >&2; changed "the command fails"; }
    echo "$case: $(cd "$case.out" && find . -type f | sed 's|^\./||' | LC_ALL=C sort | while read -r name; do echo "$name=$(cat "$name")"; done \
        | paste -s -d ' ')"
done > seen
cat seen
cat > want <<'EOF'
links: data/a=A
replaced: data/data=NEW data/old=OLD
EOF
cmp -s seen want || changed "other files are there"
echo "as stated"
