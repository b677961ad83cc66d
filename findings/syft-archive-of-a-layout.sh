# Instead: syft stops at the first entry, "./", and takes it for an attack: 'potential path traversal attack with entry: "./"'.
#   With -q, as in pipelines, nothing is printed at all. Packed as
#   `tar -cf FILE *` inside the layout the same image is scanned; skopeo reads both files.
# Seen: "dot: exit 1, potential path traversal attack", "star: exit 0, hello 1.0 deb".
