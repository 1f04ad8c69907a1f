#!/bin/sh
# ask HOST [PORT]: prints what the demo's api says there; fails when nobody answers.
# (with nc, since the wget of Debian's static busybox cannot look names up)
answer=$(printf 'GET /cgi-bin/hello HTTP/1.0\r\n\r\n' | nc -w 2 "$1" "${2:-8080}" | tail -n 1)
[ -n "$answer" ] && echo "$answer"
