"""The application behind nginx: counts visits in redis, and says who answers. `app.py check`: asks itself once.

Environment: VERSION is repeated in the answers, STORE is the name of the redis service.
"""

import json
import os
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000


def count_visit() -> int:
    """Return how many visits there have been with this one; OSError when the store does not answer (RESP protocol)."""
    with socket.create_connection((os.environ["STORE"], 6379), timeout=2) as store:
        store.sendall(b"INCR visits\r\n")
        answer = store.makefile("rb").readline()
    if not answer.startswith(b":"):
        raise OSError(f"the store answered {answer!r}")
    return int(answer[1:])


class Handler(BaseHTTPRequestHandler):
    """Answers GET of any path with JSON; /health without a visit."""

    def do_GET(self) -> None:
        try:
            visits = None if self.path == "/health" else count_visit()
        except OSError as error:
            self._answer(503, {"error": str(error)})
        else:
            self._answer(200, {"host": socket.gethostname(), "version": os.environ["VERSION"], "visits": visits})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5) as answer:
            sys.exit(answer.status != 200)
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
