#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# crane 0.20.7 (Debian sid: crane 0.20.7+ds1-5), `crane mutate --label` and `--env` with commas and quotes in the value.
#
# Expected: --label KEY=VALUE adds a label of that value, whatever the value has, as --env does in the same command.
# Instead: a label with commas and a second "=" is cut at the commas, and the rest becomes labels of their own; a value in quotes loses
#   the last of the two. Exit 0, no warning. --annotation reads its values in the same way.
# Seen: "by A, B=C and D" gives the label " B" too; '"My tool"' becomes '"My tool' as a label, and stays whole as a variable.
# Why it matters: descriptions, licences, JSON and command lines stand in labels. Whoever reads them back gets a part of them or broken
#   quotes, and an image has labels that nobody gave it.
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
debian sid crane=0.20.7+ds1-5 docker-registry=2.8.3+ds1-3

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '%s\n' "version: 0.1" "log: {level: error}" "storage: {filesystem: {rootdirectory: $tmp/registry}}" \
    "http: {addr: '127.0.0.1:$port'}" > registry.yml
"$(find root -name 'ld-linux-*.so.*' | head -n 1)" --library-path "$(find root/lib root/usr/lib -maxdepth 1 -name '*-linux-gnu' 2> /dev/null \
    | paste -s -d :)" root/usr/bin/docker-registry serve registry.yml > registry.log 2>&1 & registry=$!
trap 'kill "$registry" 2> /dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 50); do ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break; sleep 0.1; done

tar -cf layer.tar -T /dev/null
root/usr/bin/crane append -f layer.tar -t "localhost:$port/app:1" > crane.log 2>&1 || { cat crane.log registry.log >&2; exit 3; }
for value in 'by A, B=C and D' '"My tool"' 'plain text'; do
    root/usr/bin/crane mutate "localhost:$port/app:1" -t "localhost:$port/app:2" --label "key=$value" --env "KEY=$value" > crane.log 2>&1 \
        || changed "crane refuses the value: $(cat crane.log)"
    root/usr/bin/crane config "localhost:$port/app:2" | python3 -c '
import json, sys
config = json.load(sys.stdin)["config"]
print(sys.argv[1] + ":", json.dumps(config["Labels"], sort_keys=True), config["Env"][-1].removeprefix("KEY="))' "$value"
done > seen
cat seen
cat > want <<'EOF'
by A, B=C and D: {" B": "C and D", "key": "by A"} by A, B=C and D
"My tool": {"key": "\"My tool"} "My tool"
plain text: {"key": "plain text"} plain text
EOF
cmp -s seen want || changed "labels are read otherwise"
echo "as stated"
