"""A server of its own process, so that who asks shares no interpreter with it: `_answer.py PORT [PROCESSOR]`.

At PORT it gives back what comes on each connection; at PORT + 1 it closes each connection. Says "listening" and ends
with its input.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable


def main() -> None:
    """Listen on both ports until nobody wants it any more."""
    port, processors = int(sys.argv[1]), set(map(int, sys.argv[2:]))
    if processors:
        os.sched_setaffinity(0, processors)
    for number, action in ((port, _echo), (port + 1, socket.socket.close)):
        listening = socket.create_server(("", number), backlog=1024)
        threading.Thread(target=_serve, args=(listening, action), daemon=True).start()
    print("listening", flush=True)
    sys.stdin.read()


def _serve(listening: socket.socket, action: Callable[[socket.socket], None]) -> None:
    while True:
        action(listening.accept()[0])


def _echo(accepted: socket.socket) -> None:
    def converse() -> None:
        with accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while said := accepted.recv(64):
                accepted.sendall(said)

    threading.Thread(target=converse, daemon=True).start()


if __name__ == "__main__":
    main()
