#!/bin/bash
# Make the demo's root file system: image.sh VERSION > FILE.tar     (busybox and three scripts)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=${1:?usage: image.sh VERSION > FILE.tar}
busybox=$(command -v busybox) || { echo "image.sh: busybox is missing: apt-get install busybox-static" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{bin,etc,tmp,www/cgi-bin}
chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
install -m 755 "$here/hello.sh" "$root/www/cgi-bin/hello"
install -m 755 "$here/ask.sh" "$root/bin/ask"
install -m 755 "$here/ask-api.sh" "$root/bin/ask-api"
echo "$version" >"$root/version"
tar --numeric-owner --owner=0 --group=0 -C "$root" -cf - .
