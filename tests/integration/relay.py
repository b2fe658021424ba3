# SPDX-License-Identifier: Apache-2.0
"""A TCP relay to a port of this machine, which can refuse, hang up, stall, or lead elsewhere."""

import socket
import threading


class Relay:
    def __init__(self, target):
        self.target = target  # a port
        self.stalled = False  # takes bytes, and passes none on
        self.lock = threading.Lock()
        self.open = set()
        self.listener = None
        self.port = 0
        self.listen()

    def listen(self):
        """Also once more, after `refuse`, on the same port."""
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def refuse(self):
        """Nobody listens any more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()

    def hang_up(self):
        with self.lock:
            connections, self.open = self.open, set()
        for connection in connections:
            self._end(connection)

    def close(self):
        try:
            self.refuse()
        except OSError:
            self.hang_up()

    @staticmethod
    def _end(connection):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                return
            server.settimeout(None)
            with server:
                with self.lock:
                    self.open |= {client, server}
                back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
                back.start()
                self._pass_on(client, server)
                back.join()
                with self.lock:
                    self.open -= {client, server}

    def _pass_on(self, source, sink):
        try:
            while data := source.recv(65536):
                if not self.stalled:
                    sink.sendall(data)
        except OSError:
            pass
        self._end(source)
        self._end(sink)


class Impostor:
    """A TLS server that shows a certificate, and answers nothing."""

    def __init__(self, context):
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        client.settimeout(10)
        try:
            with self.context.wrap_socket(client, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            client.close()
