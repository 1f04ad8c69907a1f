"""Images on the user's side: reading archives of all common kinds, and uploading what the cluster lacks.

archive.py      what was given: a file, a directory or stdin; a tar's members
layer.py        one layer: verified, measured, compressed when it is plain
rootfs.py       a tar of files                -> an image of one layer
docker.py       a `docker save` archive       -> its image
layout.py       an OCI layout                 -> its image for one platform
local.py        the image that all of these make, ready for upload
changes.py      CMD, ENV … for its configuration
upload.py       sends it
importer.py     all of that in order
"""
