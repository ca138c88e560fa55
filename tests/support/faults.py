"""A proxy on loopback between a client and an HTTP server, which breaks some of the exchanges as a test asks.

Requests and answers pass as they are, their bodies whole in memory; what was asked for is kept in `requests`.
"""

import http.client
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["500", "503", "429", "403", "404", "reset", "stall", "cut", "short", "half-sent", "hold"]
"""A status with an S3 error document; half an answer and then a reset, silence, or a close; half an answer that says it
is all; a request of which the server gets half before the connection breaks; one that is not passed on at all."""

CODES = {"500": "InternalError", "503": "SlowDown", "429": "TooManyRequests", "403": "AccessDenied", "404": "NoSuchKey"}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(slots=True)
class Fault:
    """Break the next `times` requests whose method and path match."""

    kind: Kind
    match: str  # regular expression for "METHOD PATH?QUERY"
    times: int
    done: int = 0
    reached: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class Proxy:
    """The proxy's address, and what it has seen and broken."""

    upstream: str  # HOST:PORT
    address: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, kind: Kind, match: str = "", times: int = 1) -> Fault:
        """Ask for a fault; it comes after those asked for before."""
        self.faults.append(Fault(kind, match, times))
        return self.faults[-1]

    def release(self) -> None:
        """Let go of the requests that are held or stalled."""
        self.closing.set()
        self.closing = threading.Event()

    def heal(self) -> None:
        """Break nothing more, and forget what was asked for."""
        self.release()
        with self.lock:
            self.faults.clear()
            self.requests.clear()

    def take(self, request: str) -> Kind | None:
        """Note a request, and return what becomes of it."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.done < fault.times and re.search(fault.match, request):
                    fault.done += 1
                    fault.reached.set()
                    return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):  # the client may hang up
            super().handle_one_request()
            return
        self.close_connection = True

    def parse_request(self) -> bool:
        is_request = super().parse_request()
        if is_request:
            self._pass()
            self.command = "DONE"
        return is_request

    def do_DONE(self) -> None:
        """Everything was done when the request was parsed, whatever its method."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        kind = self.proxy.take(f"{self.command} {self.path}")
        sent = self._body()
        if self.command == "PUT" and self.path.endswith("/"):  # a directory marker, which rclone would take for a file
            self._answer(200, {}, b"")
            return
        if kind in CODES:
            self._answer(int(kind), {"Content-Type": "application/xml"}, _document(kind))
            return
        if kind == "hold":
            self.proxy.closing.wait(120)
            self._reset()
            return
        if kind == "half-sent":
            self._send_half(sent)
            self._reset()
            return
        with self._ask(sent) as answer:
            content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if self.command == "HEAD":
            self._answer(answer.status, headers, b"", answer.getheader("Content-Length"))
            return
        half = content[: len(content) // 2]
        if kind == "short":
            self._answer(answer.status, headers, half)
            return
        if kind is None:
            self._answer(answer.status, headers, content)
            return
        self._answer(answer.status, headers, half, str(len(content)))
        self.wfile.flush()
        self.close_connection = True
        if kind == "stall":
            self.proxy.closing.wait(120)
        elif kind == "reset":
            self._reset()

    def _body(self) -> bytes:
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while length := int(self.rfile.readline().partition(b";")[0], 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @contextmanager
    def _ask(self, body: bytes) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP | {"expect"}:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        yield connection.getresponse()
        connection.close()

    def _send_half(self, body: bytes) -> None:
        host, _, port = self.proxy.upstream.partition(":")
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() not in HOP)
        with socket.create_connection((host, int(port))) as server:
            server.sendall(f"{self.command} {self.path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode())
            server.sendall(body[: len(body) // 2])

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _document(kind: str) -> bytes:
    return f"<Error><Code>{CODES[kind]}</Code><Message>as the test asked</Message></Error>".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken exchange is what this is for."""


@contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    """Run a proxy to HOST:PORT on a port of its own."""
    proxy = Proxy(upstream)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
