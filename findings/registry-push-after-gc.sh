#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-registry 2.8.3 with the configuration that Debian ships (blobdescriptor: inmemory), and skopeo 1.18.0 (Debian trixie:
# docker-registry 2.8.3+ds1-2+b8, skopeo 1.18.0+ds1-1+b5).
#
# Expected: an image that was deleted and collected can be pushed again, whole. No push was under way while garbage-collect ran.
# Instead: the running registry still remembers the blobs in its memory, and answers HEAD with 200, so that the client sends none.
#   The manifest is accepted too. The push ends with 0, and the image cannot be pulled. It stays so until the registry is
#   restarted and the image is pushed once more.
# Seen: "first push 0, pull 0", "push after collection 0, pull 1", "push after a restart 0, pull 0".
# Why it matters: a nightly collection beside a running registry breaks just the images that are built again from old layers,
#   days later and far from the cause. "The push was fine" is no proof: read back what was pushed, or restart the registry.
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
debian trixie docker-registry=2.8.3+ds1-2+b8 skopeo=1.18.0+ds1-1+b5
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry() { # start docker-registry on $port of the loopback interface
    printf '%s\n' "version: 0.1" "log: {level: error}" \
        "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}" "http: {addr: '127.0.0.1:$port'}" > registry.yml
    root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & server=$!
    trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
    for _ in $(seq 50); do python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2> /dev/null && return; sleep 0.1; done
    echo "the registry does not start: $(cat registry.log)" >&2; exit 3
}
registry

python3 - <<'EOF'
import hashlib, io, json, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {},
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()}
with tarfile.open("app.tar", "w") as tar:
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
EOF
image=docker://127.0.0.1:$port/app:1
copy() { run skopeo --insecure-policy copy -q --src-tls-verify=false --dest-tls-verify=false "$@" > copy.log 2>&1; }
both() { # push the image and pull it: the two exit codes
    local push=0 pull=0
    copy docker-archive:app.tar "$image" || push=1
    rm -rf pulled; copy "$image" dir:pulled || pull=1
    echo "$push, pull $pull"
}
first=$(both); echo "first push $first"
digest=$(sha256sum < pulled/manifest.json | cut -d ' ' -f 1)
python3 -c "import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:$port/v2/app/manifests/sha256:$digest', method='DELETE'))"
root/usr/bin/docker-registry garbage-collect registry.yml > gc.log 2>&1 || changed "garbage-collect fails: $(cat gc.log)"
again=$(both); echo "push after collection $again"
kill "$server"; wait "$server" || true
registry
restarted=$(both); echo "push after a restart $restarted"
[ "$first" = "0, pull 0" ] && [ "$again" = "0, pull 1" ] && [ "$restarted" = "0, pull 0" ] || changed "see above"
echo "as stated"
