#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7, skopeo 1.22.0 and oras 1.3.3 with docker-registry 2.8.3 (Debian sid: crane 0.20.7+ds1-5, skopeo 1.22.0+ds1-1,
# oras 1.3.3-1, docker-registry 2.8.3+ds1-3): asking for linux/arm64 of a tag that is an amd64 image, and no index.
#
# Expected: an error, as for an index that has no arm64.
# Instead: crane pull --platform and crane export --platform, and skopeo --override-arch take the option for a choice among several,
#   and with nothing to choose from they copy the amd64 image. Exit 0, no warning. oras copies nothing and says that the
#   platform does not match.
# Seen: "crane pull: exit 0, amd64", "crane export: exit 0", "skopeo copy: exit 0, amd64", "oras cp: exit 1".
# Why it matters: many images are pushed without an index. A mirror for arm64 nodes fills with programs that do not start there,
#   and by which of the tools it was filled decides whether anybody is told.
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
debian sid crane=0.20.7+ds1-5 skopeo=1.22.0+ds1-1 oras=1.3.3-1 docker-registry=2.8.3+ds1-3
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
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {
    "type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()}
with tarfile.open("app.tar", "w") as tar:
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
EOF
image=127.0.0.1:$port/app:1
run crane push app.tar "$image" > log 2>&1 || changed "push fails: $(cat log)"

try() { # NAME COMMAND ARGUMENT...
    local name=$1 code=0; shift
    run "$@" > "$name.out" 2> "$name.err" || code=1
    echo "exit $code"
}
architecture() { python3 -c 'import json, sys; print(json.load(sys.stdin)["architecture"])'; }
{
    echo "crane pull: $(try pull crane pull --platform linux/arm64 "$image" pulled.tar), $(
        tar -xOf pulled.tar "$(tar -tf pulled.tar | grep '^sha256:')" | architecture)"
    echo "crane export: $(try export crane export --platform linux/arm64 "$image" exported.tar)"
    echo "skopeo copy: $(try copy skopeo --insecure-policy --override-arch arm64 copy -q --src-tls-verify=false "docker://$image" dir:copied), $(
        python3 -c 'import json; print(json.load(open("copied/manifest.json"))["config"]["digest"].split(":")[1])' \
            | sed 's#^#copied/#' | xargs cat | architecture)"
    echo "oras cp: $(try cp oras cp --platform linux/arm64 --from-plain-http --to-oci-layout "$image" layout:1)"
} > seen
cat seen
cat > want <<'EOF'
crane pull: exit 0, amd64
crane export: exit 0
skopeo copy: exit 0, amd64
oras cp: exit 1
EOF
cmp -s seen want || changed "see above"
[ ! -s pull.err ] && [ ! -s copy.err ] || changed "there is a warning: $(cat pull.err copy.err)"
echo "as stated"
