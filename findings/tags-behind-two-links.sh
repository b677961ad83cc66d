#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# skopeo 1.22.0, crane 0.20.7 and oras 1.3.3 (Debian sid: skopeo 1.22.0+ds1-1, crane 0.20.7+ds1-5, oras 1.3.3-1), lists of tags on
# several pages.
#
# Expected: the next page is the link with the relation "next", wherever it stands in the Link header (RFC 8288, which the OCI
#   specification names).
# Instead: all three follow the first link, whatever its relation says. Where the registry also gives the last page, and gives it
#   first, they go from the first page to the last, and list what is on the two.
# Seen: "skopeo: exit 0, a b e f", "crane: exit 0, a b e f", "oras: exit 0, a b e f".
# Why it matters: the tags in between are missing from mirrors, clean-ups and searches for the newest version, and nothing is said. A
#   link to the first page in that place would be worse: it is followed again and again.
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
debian sid skopeo=1.22.0+ds1-1 crane=0.20.7+ds1-5 oras=1.3.3-1

cat > registry.py <<'EOF'
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGES = {"": ("ab", "b"), "b": ("cd", "d"), "d": ("ef", None)}


class Registry(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/v2/app/tags/list":
            tags, last = PAGES[parse_qs(url.query).get("last", [""])[0]]
            body = json.dumps({"name": "app", "tags": list(tags)}).encode()
        else:
            last, body = None, b"{}"
        self.send_response(200)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/json")
        if last:
            place = "</v2/app/tags/list?last=%s>; rel=\"%s\""
            self.send_header("Link", f"{place % ('d', 'last')}, {place % (last, 'next')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
EOF
python3 registry.py > port 2> /dev/null & server=$!
trap 'kill "$server" 2> /dev/null; rm -rf "$tmp"' EXIT
for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
image=127.0.0.1:$(cat port)/app

list() { # NAME COMMAND ARGUMENT...: run it, and say the tags, each of which is one letter
    local name=$1 code=0; shift
    timeout 60 "$BASH" -c "$(declare -f run); tmp=$tmp; run \"\$@\"" - "$@" > "$name.out" 2> "$name.err" || code=$?
    echo "$name: exit $code, $(grep -Eo '(^|")[a-f]("|$|,)' "$name.out" | tr -dc 'a-f\n' | paste -s -d ' ')"
}
{
    list skopeo skopeo list-tags --tls-verify=false "docker://$image"
    list crane crane ls --insecure "$image"
    list oras oras repo tags --plain-http "$image"
} > seen
cat seen
printf '%s\n' 'skopeo: exit 0, a b e f' 'crane: exit 0, a b e f' 'oras: exit 0, a b e f' > want
cmp -s seen want || changed "tags are listed otherwise: $(cat ./*.err)"
echo "as stated"
