#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# containerify 4.1.0 (npm), --toTar, with skopeo 1.18.0 and docker-registry 2.8.3 (Debian trixie: skopeo 1.18.0+ds1-1+b5,
# docker-registry 2.8.3+ds1-2+b8) and snyk-docker-plugin 9.8.0 (npm).
#
# Expected: manifest.json of the archive has the keys Config, RepoTags and Layers, as docker save writes them.
# Instead: they are config, repoTags and layers. Whatever is written in Go reads that, since Go's JSON does not tell upper from
#   lower case: skopeo, Syft, dive. Readers in other languages do not: Snyk's plugin says "Unsupported archive
#   type", udocker ends in KeyError: 'RepoTags'.
# Seen: "keys: config layers repoTags", "skopeo: reads it", "snyk: Unsupported archive type".
# Why it matters: "skopeo takes it" is no proof that an archive is one. A reader has to match these keys as Go does.
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
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry() { # start docker-registry on $port of the loopback interface
    printf '%s\n' "version: 0.1" "log: {level: error}" \
        "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}" "http: {addr: '127.0.0.1:$port'}" > registry.yml
    root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & server=$!
    trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
    for _ in $(seq 50); do python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2> /dev/null && return; sleep 0.1; done
    echo "the registry does not start: $(cat registry.log)" >&2; exit 3
}
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
debian trixie skopeo=1.18.0+ds1-1+b5 docker-registry=2.8.3+ds1-2+b8
npm containerify@4.1.0 snyk-docker-plugin@9.8.0
registry

mkdir base app
echo 1 > base/hello
echo 1 > app/index.js
echo '{"name": "app", "version": "1.0.0"}' > app/package.json
python3 - <<'EOF'
import hashlib, io, json, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.add("base/hello", "hello")
layer = raw.getvalue()
config = {"architecture": "amd64", "os": "linux", "config": {}, "history": [{"created_by": "COPY hello"}],
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
files = {"layer.tar": layer, "config.json": json.dumps(config).encode(), "manifest.json": json.dumps(
    [{"Config": "config.json", "RepoTags": ["base:1"], "Layers": ["layer.tar"]}]).encode()}
with tarfile.open("base.tar", "w") as tar:
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
EOF
run skopeo --insecure-policy copy -q --dest-tls-verify=false docker-archive:base.tar "docker://127.0.0.1:$port/base:1"
timeout 60 node node_modules/.bin/containerify --fromImage base:1 --fromRegistry "http://127.0.0.1:$port/v2/" --folder app \
    --toTar app.tar --toImage app:1 > log 2>&1 || changed "containerify fails: $(cat log)"
keys=$(tar -xOf app.tar manifest.json | python3 -c 'import json, sys; print(*sorted(json.load(sys.stdin)[0]))')
echo "keys: $keys"
run skopeo inspect docker-archive:app.tar > log 2>&1 || changed "skopeo does not read it: $(cat log)"
echo "skopeo: reads it"
cat > scan.cjs <<'EOF'
require('snyk-docker-plugin').scan({ path: 'docker-archive:app.tar' }).then(() => console.log('reads it'), (error) => console.log(error.message))
EOF
snyk=$(timeout 60 node scan.cjs); echo "snyk: $snyk"
[ "$keys" = "config layers repoTags" ] || changed "the keys are $keys"
case $snyk in "Unsupported archive type"*) ;; *) changed "snyk: $snyk" ;; esac
echo "as stated"
