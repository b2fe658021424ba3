# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 with keep-alive, with or without TLS, one thread for each connection."""

import email.utils
import http.server
import itertools
import socket
import ssl
import struct
import sys
import threading
import time
import traceback

from .reply import Reply, Request

MAX_BODY = 1 << 20
HANDSHAKE_TIMEOUT = 10
IDLE_TIMEOUT = 300
connection_numbers = itertools.count(1)


class Server(http.server.ThreadingHTTPServer):
    """
    @frontend: handle(request, record) -> Reply. @certificates: for TLS, else None.

    TLS handshakes run in the connection's thread: a stuck client blocks nobody.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, app, frontend, port, certificates=None):
        self.app = app
        self.frontend = frontend
        self.certificates = certificates
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def port(self):
        return self.server_address[1]

    def serve_in_thread(self):
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def process_request_thread(self, request, client_address):
        if self.certificates:
            request.settimeout(HANDSHAKE_TIMEOUT)
            request = self._handshake(request)
            if request is None:
                self.app.counters.handshake_failed()
                return
        request.settimeout(IDLE_TIMEOUT)
        self.app.counters.connection_opened(self.frontend.target)
        super().process_request_thread(request, client_address)

    def _handshake(self, request):
        """The TLS socket, or None if the client didn't go through with it."""
        wrapped = self.certificates.context().wrap_socket(
            request, server_side=True, do_handshake_on_connect=False
        )
        try:
            wrapped.do_handshake()
        except OSError:
            wrapped.close()
            return None
        return wrapped

    def handle_error(self, request, client_address):
        """A connection that the client broke is no fault of ours."""
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ssl.SSLError)):
            self.app.counters.failed(traceback.format_exc())
            traceback.print_exc()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.connection_number = next(connection_numbers)

    def log_message(self, *_):
        """Nothing: requests carry secrets, and the counters know what happened."""

    def send_error(self, code, message=None, explain=None):
        """For requests that aren't HTTP: JSON, not the page of the base class."""
        self.close_connection = True
        text = message or "The request is not valid HTTP"
        self._send(Reply(code, {"error": {"code": "BadParameter", "message": text}}))

    def answer(self):
        body = self._read_body()
        if body is None:
            return
        request = Request(
            method=self.command,
            target=self.path,
            headers=self.headers,
            body=body,
            address=self.client_address[0],
            connection=self.connection_number,
            host=self.headers.get("Host") or f"127.0.0.1:{self.server.port}",
            server_name=getattr(self.connection, "name_asked", None),
        )
        counters, record = self.server.app.counters, {}
        counters.began(self.server.frontend.target)
        reply = Reply(0)
        try:
            reply = self.server.frontend.handle(request, record)
        except Exception:
            counters.failed(traceback.format_exc())
            traceback.print_exc()
            error = {"code": "InternalServerError", "message": "a fault of the emulator itself"}
            reply = Reply(500, {"error": error})
        finally:
            counters.ended(self.server.frontend.target, request, reply, record)
        self._send(reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer

    def _read_body(self):
        """The request's body; None if it was refused."""
        text = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding") or not (text.isascii() and text.isdigit()):
            self.send_error(411, "A Content-Length is needed")
            return None
        if int(text[:19]) > MAX_BODY:
            self.send_error(413, "The request is too large")
            return None
        body = self.rfile.read(int(text))
        if len(body) < int(text):
            self.close_connection = True
            return None
        return body

    # --- sending ---------------------------------------------------------------------------------

    def _send(self, reply):
        if reply.transport in ("cut", "reset"):
            self._break(reply.transport == "reset")
            return
        payload = reply.encoded()
        chunked = reply.transport == "chunked"
        head = self._head(reply, payload, chunked)
        if self.command == "HEAD":
            payload = b""
        if chunked:
            payload = b"".join(
                b"%x\r\n%s\r\n" % (len(part), part)
                for part in (payload[i : i + 50] for i in range(0, len(payload), 50))
            ) + b"0\r\n\r\n"
        if reply.transport == "half":
            self.wfile.write(head + payload[: len(payload) // 2])
            self._break(False)
        elif reply.transport == "trickle":
            for byte in head + payload:
                self.wfile.write(bytes([byte]))
                time.sleep(reply.trickle_ms / 1000)
        else:
            self.wfile.write(head + payload)

    def _head(self, reply, payload, chunked):
        """Status line and headers, as bytes; sent with the body in one piece."""
        reason = http.server.BaseHTTPRequestHandler.responses.get(reply.status, ("Unknown",))[0]
        headers = {
            "Date": email.utils.formatdate(self.server.app.clock.now("date"), usegmt=True),
            "Server": "turnkeyfs-emulator",
        } | reply.headers
        if payload or reply.raw is not None:
            headers["Content-Type"] = reply.content_type
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif reply.status != 204:
            headers["Content-Length"] = str(len(payload))
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _break(self, with_reset):
        """Close the connection without an end: for a reset, with an RST."""
        self.close_connection = True
        raw = self.connection
        try:
            if with_reset:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                socket.socket.shutdown(raw, socket.SHUT_RDWR)
            socket.socket.close(raw)
        except OSError:
            pass
