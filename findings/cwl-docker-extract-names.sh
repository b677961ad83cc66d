#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# cwl-utils 0.45 (PyPI), `cwl-docker-extract --container-engine`, with Podman 5.8.6 and docker-registry 2.8.3 (Debian sid:
# podman 5.8.6+ds1-3, docker-registry 2.8.3+ds1-3). Needs root.
#
# Expected: a file for each image of the workflow; with --force-download too, into a new folder or an old one.
# Instead: the file's name is the image's with the slashes left out and colons made underscores, so that lab/app:1 and labapp:1
#   are one file, labapp_1.tar. Podman refuses to write the second one ("doesn't support modifying existing images").
#   --force-download begins with removing the old file, and ends in FileNotFoundError, after the pull, where there is none.
# Seen: "two images: exit 1, files: …labapp_1.tar", "forced, new folder: exit 1, FileNotFoundError".
# Why it matters: the folder is what goes to a site without a network; a workflow whose images differ by a slash cannot be
#   carried there, and the option meant for a fresh copy works on stale folders only.
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
inside() { # COMMAND ARGUMENT...: run a command in a system of its own made of $tmp/root, with $tmp/lab as /lab
    mkdir -p root/lab root/proc root/dev root/sys root/tmp root/run root/root root/var/tmp root/etc lab
    [ -e root/etc/passwd ] || { echo root:x:0:0:root:/root:/bin/sh > root/etc/passwd; echo root:x:0: > root/etc/group; }
    for name in bin lib lib64 sbin; do [ -e "root/$name" ] || ln -s "usr/$name" "root/$name"; done
    [ -e root/bin/sh ] || ln -s dash root/bin/sh
    touch root/etc/resolv.conf root/etc/hosts root/etc/localtime
    unshare --mount --propagation private sh -c 'cd "$1" && mount --rbind root root && mount --bind lab root/lab && cd root \
        && for name in proc dev sys; do mount --rbind "/$name" "$name" || exit 3; done && mount -t tmpfs none tmp && mkdir -p .outside \
        && pivot_root . .outside && cd /lab && umount -l /.outside && shift && exec env -i PATH=/usr/bin:/usr/sbin HOME=/root "$@"' sh "$tmp" "$@"
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
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
debian sid podman=5.8.6+ds1-3 netavark docker-registry=2.8.3+ds1-3 skopeo=1.22.0+ds1-1 coreutils dash mount
pypi cwl-utils==0.45
registry

mkdir -p lab root/etc/containers
echo '{"default": [{"type": "insecureAcceptAnything"}]}' > root/etc/containers/policy.json
printf '[[registry]]\nlocation = "127.0.0.1:%s"\ninsecure = true\n' "$port" > root/etc/containers/registries.conf
cd lab
python3 - "$port" <<'EOF'
import hashlib, io, json, sys, tarfile

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
for name in ["lab/app", "labapp"]:
    tool = {"cwlVersion": "v1.2", "class": "CommandLineTool", "baseCommand": "true", "inputs": [], "outputs": [],
            "requirements": [{"class": "DockerRequirement", "dockerPull": f"127.0.0.1:{sys.argv[1]}/{name}:1"}]}
    with open(name.replace("/", "-") + ".cwl", "w") as file:
        json.dump(tool, file)
workflow = {"cwlVersion": "v1.2", "class": "Workflow", "inputs": [], "outputs": [], "steps": [
    {"id": "one", "in": [], "out": [], "run": "lab-app.cwl"}, {"id": "two", "in": [], "out": [], "run": "labapp.cwl"}]}
with open("both.cwl", "w") as file:
    json.dump(workflow, file)
EOF
for name in lab/app labapp; do
    run skopeo --insecure-policy copy -q --dest-tls-verify=false docker-archive:app.tar "docker://127.0.0.1:$port/$name:1"
done
cat > engine <<'EOF'
#!/usr/bin/env bash
cd ..; inside podman --root /lab/store --runroot /tmp/run --storage-driver vfs "$@"
EOF
chmod +x engine
export tmp; export -f inside
extract() { # NAME ARGUMENT...
    local name=$1 code=0; shift
    ../venv/bin/cwl-docker-extract --container-engine ./engine "$@" > "$name.log" 2>&1 || code=1
    echo "exit $code"
}
echo "two images: $(extract both --dir both both.cwl), files: $(ls both | sed 's/^127.0.0.1_[0-9]*//' | paste -s -d ' ')" > seen
echo "forced, new folder: $(extract fresh --force-download --dir fresh labapp.cwl), $(grep -o '^FileNotFoundError' fresh.log || true)" >> seen
echo "not forced, new folder: $(extract plain --dir plain labapp.cwl), files: $(ls plain | sed 's/^127.0.0.1_[0-9]*//')" >> seen
cat seen
cat > want <<'EOF'
two images: exit 1, files: labapp_1.tar
forced, new folder: exit 1, FileNotFoundError
not forced, new folder: exit 0, files: labapp_1.tar
EOF
cmp -s seen want || changed "it ends otherwise: $(tail -n 3 both.log fresh.log plain.log)"
grep -q "doesn't support modifying existing images" both.log || changed "it is another error: $(tail -n 3 both.log)"
echo "as stated"
