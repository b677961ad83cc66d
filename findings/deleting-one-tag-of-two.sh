#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# oras 0.2.43 and python-dxf 12.1.1 (PyPI), `delete_tags` and `del_alias`, with docker-registry 2.8.3 (Debian sid:
# docker-registry 2.8.3+ds1-3).
#
# Expected: the tag is gone, and other tags of the same image stay. oras-py says "Delete a tag for a container", python-dxf "Delete an
#   alias from the registry. The blobs it points to won't be deleted".
# Instead: both look up the digest of the tag, and delete the manifest by its digest. All tags of that image are gone with it, and
#   their names are neither asked for nor reported: delete_tags(…, "latest") returns ["latest"].
# Seen: "oras-py: deleted ['latest'], left []" of the tags latest and 1; "dxf: left []" of the aliases one and two of a blob.
# Why it matters: release tags most often share an image with latest. Who tidies up "latest" deletes the release, and whoever
#   pulled it by digest does not find it any more either.
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
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
debian sid docker-registry=2.8.3+ds1-3
pypi oras==0.2.43 python-dxf==12.1.1

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '%s\n' "version: 0.1" "log: {level: error}" "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}}" \
    "http: {addr: '127.0.0.1:$port'}" > registry.yml
"$(find root -name 'ld-linux-*.so.*' | head -n 1)" --library-path "$(find root/lib root/usr/lib -maxdepth 1 -name '*-linux-gnu' 2> /dev/null \
    | paste -s -d :)" root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & registry=$!
trap 'kill "$registry" 2> /dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 50); do ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break; sleep 0.1; done

echo hello > file.txt
venv/bin/python - "localhost:$port" > seen 2> err <<'EOF' || { cat err registry.log >&2; changed "a library fails"; }
import sys

import dxf, oras.client

client = oras.client.OrasClient(hostname=sys.argv[1], insecure=True)
client.push(sys.argv[1] + "/app:1", files=["file.txt"])
manifest = client.get_manifest(sys.argv[1] + "/app:1")
client.upload_manifest(manifest, client.get_container(sys.argv[1] + "/app:latest"))
print("oras-py: tags", sorted(client.get_tags(sys.argv[1] + "/app")))
print("oras-py: deleted", client.delete_tags(sys.argv[1] + "/app", "latest"), end=", ")
print("left", client.get_tags(sys.argv[1] + "/app"))

repository = dxf.DXF(sys.argv[1], "data", insecure=True)
digest = repository.push_blob("file.txt")
repository.set_alias("one", digest)
repository.set_alias("two", digest)
print("dxf: aliases", sorted(repository.list_aliases()))
repository.del_alias("one")
print("dxf: left", repository.list_aliases())
EOF
cat seen
cat > want <<'EOF'
oras-py: tags ['1', 'latest']
oras-py: deleted ['latest'], left []
dxf: aliases ['one', 'two']
dxf: left []
EOF
cmp -s seen want || changed "other tags stay"
echo "as stated"
