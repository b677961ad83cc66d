#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7 (Debian sid: crane 0.20.7+ds1-5), `crane export` of an image with hard links.
#
# Expected: a file that has two names in a lower layer keeps its content under the second name when an upper layer
#   overwrites or removes the first, as it does in every engine.
# Instead: export writes the upper layers first and the link of the lower one as it was. Where the first name was
#   overwritten, the second now has the new content; where it was removed, the link points at nothing, and tar cannot
#   unpack the result. Exit 0 in both cases.
# Seen: "over: b=NEW" (right: OLD), "gone: tar: data/b: Cannot hard link to 'data/a': No such file or directory".
# Why it matters: package managers and conda make hard links by the thousand. Whoever makes a root file system or a
#   SIF of an image by way of `crane export` gets other files than the image has, without a word.
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


def layer(*members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            if kind == tarfile.LNKTYPE:
                member.linkname = value
            elif kind == tarfile.REGTYPE:
                member.size = len(value)
            tar.addfile(member, io.BytesIO(value.encode()))
    return raw.getvalue()


def archive(path, layers):
    digests = [hashlib.sha256(one).hexdigest() for one in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + one for one in digests]}}).encode()
    files = {one + ".tar": content for one, content in zip(digests, layers)}
    files["config.json"] = config
    files["manifest.json"] = json.dumps(
        [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": [one + ".tar" for one in digests]}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


base = layer(("data", tarfile.DIRTYPE, ""), ("data/a", tarfile.REGTYPE, "OLD"), ("data/b", tarfile.LNKTYPE, "data/a"))
archive("over.tar", [base, layer(("data/a", tarfile.REGTYPE, "NEW"))])
archive("gone.tar", [base, layer(("data/.wh.a", tarfile.REGTYPE, ""))])
EOF

for case in over gone; do
    root/usr/bin/crane export - "$case.out.tar" < "$case.tar" || changed "export of $case.tar failed"
    mkdir "$case"
done
tar -xf over.out.tar -C over || changed "the export with an overwritten name cannot be unpacked"
echo "over: a=$(cat over/data/a) b=$(cat over/data/b)"
[ "$(cat over/data/b)" = NEW ] || changed "the second name has the content $(cat over/data/b)"
if tar -xf gone.out.tar -C gone 2> gone.err; then changed "the export with a removed name unpacks"; fi
echo "gone: $(head -n 1 gone.err)"
grep -q "data/b" gone.err || changed "tar fails otherwise: $(cat gone.err)"
echo "as stated"
