#!/bin/sh
# The front: asks the api by its name, for ever.
while true; do
    echo "$(hostname) hears: $(wget -q -T 2 -O - http://api:8080/cgi-bin/hello 2>&1)"
    sleep 1
done
