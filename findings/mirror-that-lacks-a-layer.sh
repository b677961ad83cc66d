#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# skopeo 1.22.0 (Debian sid: skopeo 1.22.0+ds1-1; Podman 4.3, 5.4 and 5.8 do the same), a mirror in registries.conf.
#
# Expected: a mirror is tried first, and what it does not have comes from the registry ("if none of the mirrors contains the image",
#   says containers-registries.conf(5)): also a layer.
# Instead: the place is chosen with the manifest, once. A mirror that has the manifest and answers 404 for a layer ends the copy;
#   the registry, which has all of the image, is never asked.
# Seen: "mirror without the image: exit 0", "mirror without a layer: exit 1, the registry was asked 0 times".
# Why it matters: caches drop old layers one by one, and fill from below while others pull. The image is there, and cannot be had until
#   somebody takes the mirror out of the configuration.
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
debian sid skopeo=1.22.0+ds1-1

cat > registries.py <<'EOF'
import gzip, hashlib, io, json, tarfile, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()


def described(kind, content):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                     "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}).encode()
packed = gzip.compress(layer, mtime=0)
manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "config": described("config.v1+json", config),
                       "layers": [described("layer.v1.tar+gzip", packed)]}).encode()
whole = {"/v2/": b"{}", "/v2/app/manifests/1": manifest, f"/v2/app/blobs/{digest_of(config)}": config,
         f"/v2/app/blobs/{digest_of(packed)}": packed}
without_layer = {path: content for path, content in whole.items() if content is not packed}


def serve(files, asked):
    class Registry(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            with open(f"asked-{self.server.server_port}", "w") as file:
                file.write("\n".join(asked))
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            if "/manifests/" in self.path and body is not None:
                self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            body = body if body is not None else b'{"errors": [{"code": "BLOB_UNKNOWN", "message": "unknown"}]}'
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever).start()
    return server.server_port


print(serve(whole, []), serve({"/v2/": b"{}"}, []), serve(without_layer, []), flush=True)
EOF
python3 registries.py > ports 2> /dev/null & server=$!
trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 50); do [ -s ports ] && break; sleep 0.1; done
read -r registry empty partial < ports

copy() { # MIRROR'S PORT
    local code=0
    printf '[[registry]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n[[registry.mirror]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n' \
        "$registry" "$1" > registries.conf
    rm -rf copied "asked-$registry"
    run skopeo --insecure-policy --registries-conf registries.conf copy -q "docker://127.0.0.1:$registry/app:1" dir:copied > log 2>&1 || code=$?
    echo "exit $code"
}
echo "mirror without the image: $(copy "$empty")" > seen
echo "mirror without a layer: $(copy "$partial"), the registry was asked $(cat "asked-$registry" 2> /dev/null | grep -c . || :) times" >> seen
cat seen
printf '%s\n' 'mirror without the image: exit 0' 'mirror without a layer: exit 1, the registry was asked 0 times' > want
cmp -s seen want || changed "see above: $(cat log)"
echo "as stated"
