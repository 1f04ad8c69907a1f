#!/bin/sh
# The front: asks the api by its name, for ever.       ask-api [HOST]: asks once and ends with 0 if it was answered
# (with nc, since the wget of Debian's static busybox cannot look names up)
ask() { printf 'GET /cgi-bin/hello HTTP/1.0\r\n\r\n' | nc -w 2 "$1" 8080 2>&1 | tail -n 1; }
if [ $# -gt 0 ]; then
    ask "$1" | grep -q '^hello'
    exit
fi
while true; do
    echo "$(hostname) hears: $(ask api)"
    sleep 1
done
