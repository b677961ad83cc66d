#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tar-stream 3.2.2, tar 7.5.23, modern-tar 0.8.6, @remix-run/tar-parser 0.7.1 and nanotar 0.3.0 (npm), layers with sparse files.
#
# Expected: the file with its holes, as GNU tar, Python, Go and libarchive read it; or an error.
# Instead: none of the five knows the sparse form that GNU tar writes with --format=posix. Each hands out the map of holes and the
#   data in a row as the file's content, under the name GNUSparseFile.NUMBER/NAME; the real name and size stand in the entry's own
#   attributes. Of GNU's older form modern-tar gives the data in a row as the file; tar leaves the entry out with no word but an event;
#   the others at least give it another type than file. No error, no warning.
# Seen: for a file of 3 MB "posix: … 8704 bytes as ./GNUSparseFile.N/sparse" from all five.
# Why it matters: scanners, registries and builders in JavaScript read layers with these. They see another file, under another name, than
#   the engines that run the image.
set -eu
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT; cd "$tmp"
changed() { echo "CHANGED: $*" >&2; exit 1; }
npm() { # PACKAGE@VERSION...: install pinned packages into $tmp/node_modules
    echo '{"private": true}' > package.json
    command npm install --silent --no-audit --no-fund --ignore-scripts "$@" > npm.log 2>&1 \
        || { cat npm.log >&2; echo "cannot install $*" >&2; exit 3; }
}
npm tar-stream@3.2.2 tar@7.5.23 modern-tar@0.8.6 @remix-run/tar-parser@0.7.1 nanotar@0.3.0

truncate -s 3M sparse
for offset in 1048576 2097152; do printf HELLO | dd of=sparse bs=1 seek="$offset" conv=notrunc status=none; done
tar --sparse --format=posix -cf posix.tar sparse
tar --sparse --format=gnu -cf gnu.tar sparse
for case in posix gnu; do [ "$(tar -xOf "$case.tar" | sha256sum)" = "$(sha256sum < sparse)" ] || changed "tar itself reads otherwise"; done
cat > read.mjs <<'EOF'
import { readFileSync, createReadStream } from 'node:fs'
import { parseTar as parse } from '@remix-run/tar-parser'
import { unpackTar } from 'modern-tar'
import { parseTar } from 'nanotar'
import { Parser } from 'tar'
import tarStream from 'tar-stream'

for (const format of ['posix', 'gnu']) {
  const path = format + '.tar'
  const show = (tool, name, type, size) =>
    console.log(`${format}: ${tool}: ${size} bytes as ${name.replace(/File\.\d+/, 'File.N')}, ${type}`)
  const archive = readFileSync(path)
  await new Promise((done, fail) => {
    const extract = tarStream.extract()
    extract.on('entry', (header, stream, next) => {
      let size = 0
      stream.on('data', chunk => { size += chunk.length })
      stream.on('end', () => { show('tar-stream', header.name, header.type, size); next() })
    })
    extract.on('finish', done).on('error', fail)
    createReadStream(path).pipe(extract)
  })
  await new Promise((done, fail) => {
    const parser = new Parser()
    parser.on('entry', entry => {
      let size = 0
      entry.on('data', chunk => { size += chunk.length })
      entry.on('end', () => show('tar', entry.path, entry.type, size))
    })
    parser.on('ignoredEntry', entry => console.log(`${format}: tar: leaves out ${entry.path}`))
    parser.on('end', done).on('error', fail)
    createReadStream(path).pipe(parser)
  })
  for (const entry of await unpackTar(archive)) show('modern-tar', entry.header.name, entry.header.type, entry.data.length)
  await parse(archive, async entry => show('tar-parser', entry.name, entry.header.type, (await entry.arrayBuffer()).byteLength))
  for (const entry of parseTar(archive)) show('nanotar', entry.name, entry.type, entry.data.length)
}
EOF
node read.mjs > seen 2> err || { cat err >&2; changed "a library refuses the file"; }
cat seen
cat > want <<'EOF'
posix: tar-stream: 8704 bytes as ./GNUSparseFile.N/sparse, file
posix: tar: 8704 bytes as ./GNUSparseFile.N/sparse, File
posix: modern-tar: 8704 bytes as ./GNUSparseFile.N/sparse, file
posix: tar-parser: 8704 bytes as ./GNUSparseFile.N/sparse, file
posix: nanotar: 8704 bytes as ./GNUSparseFile.N/sparse, file
gnu: tar-stream: 8192 bytes as sparse, null
gnu: tar: leaves out sparse
gnu: modern-tar: 8192 bytes as sparse, file
gnu: tar-parser: 8192 bytes as sparse, unknown
gnu: nanotar: 8192 bytes as sparse, gnuSparseFile
EOF
cmp -s seen want || changed "sparse files are read otherwise"
echo "as stated"
