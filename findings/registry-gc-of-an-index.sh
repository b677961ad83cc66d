#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docker-registry 2.8.3 (Debian trixie: docker-registry 2.8.3+ds1-2+b8), `garbage-collect --delete-untagged`.
#
# Expected: the option removes manifests that nothing refers to. Those that a tagged index names have no tag of their own, and
#   never do for an image of several platforms, but they are what the tag is for.
# Instead: whatever has no tag goes, with its layers. The index stays under its tag, and every pull of it fails. Exit 0. A list of
#   signatures under sha256-<digest> is such an index, too.
# Seen: "before: index 200, child 200", "after: index 200, child 404".
# Why it matters: the option is what admins of full registries reach for, and what made room was the images of all platforms.
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
debian trixie docker-registry=2.8.3+ds1-2+b8
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

cat > client.py <<'EOF'
import gzip, hashlib, io, json, sys, tarfile, urllib.error, urllib.request

base = f"http://127.0.0.1:{sys.argv[1]}/v2/app/"
OCI = "application/vnd.oci.image."


def call(method, path, content=None, media_type="application/octet-stream"):
    headers = {"Content-Type": media_type, "Accept": f"{OCI}index.v1+json, {OCI}manifest.v1+json"}
    request = urllib.request.Request(path if "://" in path else base + path, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def push(media_type, content):
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    where = call("POST", "blobs/uploads/", b"")[1]["Location"]
    status = call("PUT", where + ("&" if "?" in where else "?") + "digest=" + digest, content)[0]
    assert status == 201, status
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def push_manifest(name, value):
    content = json.dumps(value).encode()
    descriptor = {"mediaType": value["mediaType"], "digest": "sha256:" + hashlib.sha256(content).hexdigest(), "size": len(content)}
    status, _, body = call("PUT", "manifests/" + (name or descriptor["digest"]), content, value["mediaType"])
    assert status == 201, body
    return descriptor


if sys.argv[2] == "push":
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    layer = raw.getvalue()
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
    child = push_manifest(None, {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                                 "config": push(OCI + "config.v1+json", json.dumps(config).encode()),
                                 "layers": [push(OCI + "layer.v1.tar+gzip", gzip.compress(layer))]})
    child["platform"] = {"os": "linux", "architecture": "amd64"}
    push_manifest("1", {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [child]})
else:
    status, _, body = call("GET", "manifests/1")
    child = json.loads(body)["manifests"][0]["digest"]
    print(f"index {status}, child", call("GET", "manifests/" + child)[0])
EOF
python3 client.py "$port" push
echo "before: $(python3 client.py "$port" look)"
kill "$server"; wait "$server" || true
root/usr/bin/docker-registry garbage-collect --delete-untagged registry.yml > gc.log 2>&1 || changed "garbage-collect fails: $(cat gc.log)"
registry
after=$(python3 client.py "$port" look)
echo "after: $after"
[ "$after" = "index 200, child 404" ] || changed "after: $after"
echo "as stated"
