"""Small cameras for the tests: MJPEG over HTTP, JPEG over RTSP, and servers that misbehave; on loopback."""

from __future__ import annotations

import contextlib
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

SIZE = (160, 120)


def picture(number: int) -> bytes:
    """A JPEG of one grey level, which tells its number modulo 250."""
    image = np.full((SIZE[1], SIZE[0], 3), number % 250, np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


class MjpegCamera:
    """Serves numbered frames until stopped; can be started again on the same port.

    Args:
        period: seconds between frames.
        hang_after: frames after which it keeps the connection and says no more.
        authorization: header without which it answers 401.
    """

    def __init__(
        self, *, period: float = 0.01, hang_after: int | None = None, authorization: str | None = None
    ) -> None:
        self.port = 0
        self.sent = 0
        self.paths: list[str] = []
        self._period = period
        self._hang_after = hang_after
        self._authorization = authorization
        self._stop = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> MjpegCamera:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        camera, self._stop = self, threading.Event()
        stop = self._stop

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                camera.paths.append(self.path)
                if camera._authorization not in (None, self.headers.get("Authorization")):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not stop.is_set():
                        data = picture(camera.sent)
                        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                        self.wfile.write(b"Content-Length: %d\r\n\r\n%b\r\n" % (len(data), data))
                        camera.sent += 1
                        if camera._hang_after and camera.sent >= camera._hang_after:
                            stop.wait()
                        time.sleep(camera._period)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@contextlib.contextmanager
def http_server(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """Serves fixed bodies by path (404 for others); yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Accepts connections and never says a word; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def rtsp_camera(period: float = 0.02) -> Iterator[str]:
    """One client at a time, RTP/JPEG (RFC 2435) interleaved in the RTSP connection (RFC 2326)."""
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), server.accept()[0] as client:
                _rtsp_session(client, stop, period)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/camera"
        stop.set()
        thread.join(2)


def _rtsp_session(client: socket.socket, stop: threading.Event, period: float) -> None:
    client.settimeout(2)
    text = client.makefile("rb")
    sdp = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
    )
    while not stop.is_set():
        method = text.readline().decode().split(" ")[0].strip()
        if not method:
            return
        headers = {}
        while line := text.readline().decode().strip():
            key, _, value = line.partition(":")
            headers[key.lower()] = value.strip()
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            extra, body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n", sdp
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\n"
        client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers.get('cseq', '0')}\r\n{extra}\r\n{body}".encode())
        if method == "PLAY":
            break
        if method == "TEARDOWN":
            return
    number = sequence = 0
    while not stop.is_set():
        for packet in _rtp_jpeg(picture(number), sequence, int(number * period * 90000)):
            client.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
            sequence += 1
        number += 1
        time.sleep(period)


def _rtp_jpeg(data: bytes, sequence: int, clock: int) -> Iterator[bytes]:
    """A baseline 4:2:0 JPEG as RTP packets: quantisation tables in the first, then the scan."""
    tables, scan, at = b"", b"", 2
    while not scan:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if kind == 0xDB:
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        at += 2 + length
        if kind == 0xDA:
            scan = data[at:-2]
    for offset in range(0, len(scan), 1200):
        part = scan[offset : offset + 1200]
        last = offset + len(part) >= len(scan)
        head = struct.pack(">BBHII", 0x80, 26 | 0x80 * last, sequence & 0xFFFF, clock & 0xFFFFFFFF, 1)
        head += struct.pack(">B3sBBBB", 0, offset.to_bytes(3, "big"), 1, 255, SIZE[0] // 8, SIZE[1] // 8)
        if not offset:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield head + part
        sequence += 1
