#!/bin/sh
# The api's answer: who it is and which version of the image it runs.
printf 'Content-Type: text/plain\r\n\r\n'
echo "hello from $(hostname), version $(cat /version)"
