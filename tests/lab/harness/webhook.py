"""A web hook: ARGV = port file. Appends the body of each POST to the file, one line each."""

from __future__ import annotations

import http.server
import sys

port, file = int(sys.argv[1]), sys.argv[2]


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with open(file, "ab") as told:
            told.write(body.replace(b"\n", b" ") + b"\n")
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", port), Hook).serve_forever()
