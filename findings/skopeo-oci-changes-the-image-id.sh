#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# skopeo 1.22.0 (Debian sid: skopeo 1.22.0+ds1-1; 1.9.3 does the same), `skopeo copy docker-archive:… oci:…`.
#
# Expected: the config, whose digest is the image ID that classic Docker and Podman show, is copied byte for byte. It is valid
#   in both formats, and here has only fields that both define.
# Instead: skopeo parses it and writes it anew in the order of its own structs. Docker writes the keys in alphabetical order,
#   so an image that Docker made never keeps its ID; what OCI does not define (HEALTHCHECK, SHELL, ONBUILD) is dropped besides.
#   Exit 0, no word. Back in a docker-archive the image has the new ID, too.
# Seen: "plain: other ID same values", "checked: other ID lost: Healthcheck".
# Why it matters: whoever keeps OCI layouts and finds images by the ID that `docker images` shows does not find one that came
#   by skopeo; and a container that was restarted when unhealthy no longer is.
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

python3 - <<'EOF'
import hashlib, io, json, tarfile

raw = io.BytesIO()
with tarfile.open(fileobj=raw, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("hello"))
layer = raw.getvalue()
plain = {"architecture": "amd64", "config": {"Cmd": ["/hello"], "Env": ["A=1"]}, "created": "2024-01-01T00:00:00Z",
         "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "COPY hello"}], "os": "linux",
         "rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()], "type": "layers"}}
checked = {**plain, "config": {**plain["config"], "Healthcheck": {"Test": ["CMD", "/hello"]}}}
for name, config in {"plain": plain, "checked": checked}.items():
    text = json.dumps(config, sort_keys=True, separators=(",", ":")).encode()
    image_id = hashlib.sha256(text).hexdigest()
    files = {image_id + ".json": text, "layer.tar": layer, "manifest.json": json.dumps(
        [{"Config": image_id + ".json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]).encode()}
    with tarfile.open(name + ".tar", "w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
EOF

for name in plain checked; do
    run skopeo --insecure-policy copy -q "docker-archive:$name.tar" "oci:$name.oci:1" || changed "the copy fails"
    run skopeo --insecure-policy copy -q "oci:$name.oci:1" "docker-archive:$name.back.tar:app:1" || changed "the way back fails"
    python3 - "$name" > "$name.seen" <<'EOF'
import json, sys, tarfile

def config(path):
    with tarfile.open(path) as tar:
        name = json.load(tar.extractfile("manifest.json"))[0]["Config"]
        return name.removesuffix(".json"), json.load(tar.extractfile(name))

(before, old), (after, new) = config(sys.argv[1] + ".tar"), config(sys.argv[1] + ".back.tar")
lost = sorted(set(old["config"]) - set(new["config"]))
print("other ID" if before != after else "same ID", "same values" if old == new else "lost: " + " ".join(lost))
EOF
    echo "$name: $(cat "$name.seen")"
done
[ "$(cat plain.seen)" = "other ID same values" ] || changed "a plain config: $(cat plain.seen)"
[ "$(cat checked.seen)" = "other ID lost: Healthcheck" ] || changed "a config with a health check: $(cat checked.seen)"
echo "as stated"
