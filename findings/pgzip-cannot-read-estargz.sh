#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# pgzip 0.4.0 (PyPI), reading gzip members with an extra field.
#
# Expected: pgzip.open reads any gzip, being offered as a replacement for the gzip module; a header may have an extra
#   field (RFC 1952), which a reader that does not know it skips.
# Instead: pgzip, which keeps its own index in that field, takes bytes of a foreign one for compressed data: "Error -3 while
#   decompressing data". Several members without such fields are read well.
# Seen: the gzip module reads 6 bytes, pgzip raises zlib's error, from a layer with an eStargz footer and from a BGZF file.
# Why it matters: every eStargz layer ends in such a member, and BGZF (bgzip, tabix, BAM) is made of nothing else, so a faster
#   module cannot be put in place of the slower one where images and genomes are read.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
pypi() { # PACKAGE==VERSION...: install pinned packages into $tmp/venv
    python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check "$@" 2> pip.err \
        || { cat pip.err >&2; echo "cannot install $*" >&2; exit 3; }
}
pypi pgzip==0.4.0

venv/bin/python - > seen <<'EOF'
import gzip, io, struct, zlib

import pgzip


def member(content, extra=b""):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(content) + packer.flush()
    header = b"\x1f\x8b\x08" + bytes([4 if extra else 0]) + bytes(5) + b"\xff"
    if extra:
        header += struct.pack("<H", len(extra)) + extra
    return header + body + struct.pack("<II", zlib.crc32(content), len(content))


footer = b"SG" + struct.pack("<H", 22) + b"%016x" % 0 + b"STARGZ"
body = member(b"layer\n", b"BC" + struct.pack("<HH", 2, 0))
block = body[:16] + struct.pack("<H", len(body) - 1) + body[18:]  # BGZF: the size of the block, less one
for name, data in {"members": member(b"lay") + member(b"er\n"), "estargz": member(b"layer\n") + member(b"", footer),
                   "bgzf": block}.items():
    plain = gzip.decompress(data)
    try:
        with pgzip.open(io.BytesIO(data), "rb", thread=2) as file:
            seen = f"read {len(file.read())}"
    except Exception as error:
        seen = str(error).partition(":")[0]
    print(f"{name}: gzip read {len(plain)}, pgzip: {seen}")
EOF
cat seen
cat > want <<'EOF'
members: gzip read 6, pgzip: read 6
estargz: gzip read 6, pgzip: Error -3 while decompressing data
bgzf: gzip read 6, pgzip: Error -3 while decompressing data
EOF
cmp -s seen want || changed "pgzip reads otherwise"
echo "as stated"
