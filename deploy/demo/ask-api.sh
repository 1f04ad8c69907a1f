#!/bin/sh
# The front: asks the api by its name, for ever.
while true; do
    echo "$(hostname) hears: $(ask api 2>&1)"
    sleep 1
done
