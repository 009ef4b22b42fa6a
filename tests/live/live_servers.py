"""Streams on loopback that can be cut, stalled and started again: MPEG-TS over HTTP, with Python and PyAV alone.

For RTSP there is `benchmarks/rtsp_server.py`.
"""

from __future__ import annotations

import http.server
import io
import socket
import threading
import time

import av
import numpy as np

from color_models import color_frames

RATE = 10.0


def ts_bytes(color: str, seconds: float, *, size: int = 32, codec: str = "libx264", start: float = 0.0) -> bytes:
    """Return an MPEG-TS stream of one color."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream(codec, rate=int(RATE))
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        if codec == "libx264":
            stream.options = {"tune": "zerolatency", "preset": "ultrafast"}
        for number, frame in enumerate(color_frames([(color, seconds)], size=size, rate=RATE)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = number + round(start * RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class TsServer:
    """Serves MPEG-TS over HTTP at the speed of real time."""

    def __init__(self, port: int = 0) -> None:
        self.color, self.size, self.codec = "red", 32, "libx264"
        self.is_stalled = False
        self.connections = 0
        self._cut = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.connections += 1
                outer._serve(self.wfile, self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/live.ts"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def cut(self) -> None:
        """End the connections that there are."""
        self._cut.set()
        time.sleep(0.3)
        self._cut.clear()

    def close(self) -> None:
        """Stop serving, connections and all."""
        self._cut.set()
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, target: io.BufferedIOBase, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        begin, sent = time.monotonic(), 0.0
        while not self._cut.is_set():
            if self.is_stalled:
                time.sleep(0.02)
                continue
            part = 0.5
            target.write(ts_bytes(self.color, part, size=self.size, codec=self.codec, start=sent))
            target.flush()
            sent += part
            self._cut.wait(max(begin + sent - time.monotonic() - 0.2, 0.0))
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
