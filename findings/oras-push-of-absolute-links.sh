#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# oras 1.3.3 (Debian sid: oras 1.3.3-1), `oras push` and `oras pull` of a folder with a link to an absolute path.
#
# Expected: what `oras push` stores, `oras pull` gives back, at least with -T (--allow-path-traversal: "allow storing files out of the
#   output directory"); or the push refuses the folder.
# Instead: the push takes it and exits 0. The pull unpacks what comes before the link, stops with "is outside of", leaves the folder
#   incomplete, and does so with -T too.
# Seen: push 0; pull 1 and pull -T 1 with 'failed to extract tar to …: "/usr/bin/python3" is outside of "env"'.
# Why it matters: every environment that `python3 -m venv` makes has such a link (bin/python3), as have many unpacked Debian packages.
#   They are stored without a word, and found not to come back when they are needed.
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
debian sid oras=1.3.3-1

mkdir -p env/bin; echo settings > env/pyvenv.cfg; ln -s /usr/bin/python3 env/bin/python3
root/usr/bin/oras push --oci-layout layout:1 env > push.log 2>&1 || changed "the push refuses the folder: $(cat push.log)"
echo "push 0"
for option in "" -T; do
    rm -rf out; mkdir out
    if root/usr/bin/oras pull $option --oci-layout -o out layout:1 > pull.log 2>&1; then changed "pull $option gives the folder back"; fi
    echo "pull $option 1: $(sed -n 's|extract tar to .*/out/env|extract tar to …/out/env|; s/^Error: //p' pull.log)"
done > seen
cat seen
[ "$(grep -c 'failed to extract tar to .*: "/usr/bin/python3" is outside of "env"' seen)" = 2 ] || changed "the pull fails otherwise"
[ ! -L out/env/bin/python3 ] || changed "the link is there"
echo "as stated"
