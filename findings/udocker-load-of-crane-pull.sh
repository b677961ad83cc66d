#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# udocker 1.3.17 (PyPI) and crane 0.20.7 (Debian sid: crane 0.20.7+ds1-5, with docker-registry 2.8.3+ds1-3), `udocker load` of
# the file that `crane pull` writes.
#
# Expected: the archive loads, as in Docker, Podman and skopeo: it has manifest.json, the config and the layers.
# Instead: udocker 1.3.17 ends in a Python traceback, IndexError: list index out of range. It looks for the config by a name that
#   ends in .json, and for a file "json" of Docker 1.9's form beside every layer; crane writes neither. The same image as
#   written by skopeo, which adds those old files, loads.
# Seen: "old: exit 0, old:1", "crane: exit 1, IndexError: list index out of range".
# Why it matters: crane is how images get to machines without an engine, which is where udocker runs.
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
debian sid crane=0.20.7+ds1-5 docker-registry=2.8.3+ds1-3
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry() { # start docker-registry on $port of the loopback interface
    printf '%s\n' "version: 0.1" "log: {level: error}" \
        "storage: {filesystem: {rootdirectory: $tmp/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}" "http: {addr: '127.0.0.1:$port'}" > registry.yml
    root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & server=$!
    trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
    for _ in $(seq 50); do python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/v2/')" 2> /dev/null && return; sleep 0.1; done
    echo "the registry does not start: $(cat registry.log)" >&2; exit 3
}
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi udocker==1.3.17
registry

python3 - <<'EOF'
import hashlib, io, json, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
config = json.dumps({"architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z", "config": {"Cmd": ["/hello"]},
                     "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
                     "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "COPY hello"}]}).encode()
old = {"id": "1" * 64, "created": "2024-01-01T00:00:00Z", "config": {"Cmd": ["/hello"]}, "architecture": "amd64", "os": "linux"}
image_id = hashlib.sha256(config).hexdigest()
names = {image_id + ".json": config, "1" * 64 + "/layer.tar": layer, "1" * 64 + "/json": json.dumps(old).encode(),
         "1" * 64 + "/VERSION": b"1.0", "manifest.json": json.dumps([{"Config": image_id + ".json", "RepoTags": ["app:1"],
                                                                      "Layers": ["1" * 64 + "/layer.tar"]}]).encode(),
         "repositories": json.dumps({"app": {"1": "1" * 64}}).encode()}
with tarfile.open("old.tar", "w") as tar:
    for path, content in names.items():
        member = tarfile.TarInfo(path)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
EOF
root/usr/bin/crane push old.tar "127.0.0.1:$port/app:1" > crane.log 2>&1 || changed "crane push fails: $(cat crane.log)"
root/usr/bin/crane pull "127.0.0.1:$port/app:1" crane.tar || changed "crane pull fails"

export UDOCKER_DIR=$tmp/udocker HOME=$tmp UDOCKER_TARBALL=$tmp/none
for case in old crane; do
    code=0; timeout 60 venv/bin/udocker --allow-root load -i "$case.tar" "$case" > "$case.out" 2>&1 || code=$?
    echo "$case: exit $code, $(grep -oE '^IndexError.*|^old:1$' "$case.out")"
done > seen
cat seen
printf '%s\n' 'old: exit 0, old:1' 'crane: exit 1, IndexError: list index out of range' > want
cmp -s seen want || changed "it loads otherwise: $(cat old.out crane.out)"
echo "as stated"
