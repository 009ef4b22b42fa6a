"""Streams on loopback that can be cut, stalled and started again: MPEG-TS over HTTP, and GStreamer's RTSP server.

The HTTP server needs nothing but Python and PyAV. The RTSP server needs GStreamer's for the system's Python:
`apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good`.
"""

from __future__ import annotations

import http.server
import io
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np

from color_models import color_frames

RATE = 10.0
RTSP_SCRIPT = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[2])
factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None), "the port is taken"
print("serving", flush=True)
GLib.MainLoop().run()
"""
SYSTEM_PYTHON = "/usr/bin/python3"


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


def rtsp_fault() -> str | None:
    """Return why there can be no RTSP server here; None if there can."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    done = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else "GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)"


def color_pipeline(color: str, *, size: int = 64, rate: int = 10) -> str:
    """Return a GStreamer pipeline that sends a color as motion JPEG."""
    caps = f"video/x-raw,format=I420,width={size},height={size},framerate={rate}/1"
    return f"( videotestsrc is-live=true pattern={color} ! {caps} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )"


def file_pipeline(path: Path) -> str:
    """Return a pipeline that sends an H.264 file as it is."""
    return f'( filesrc location="{path}" ! qtdemux ! h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96 )'


class RtspServer:
    """GStreamer's RTSP server in a process of its own."""

    def __init__(self, pipeline: str, port: int | None = None) -> None:
        self.port = port if port is not None else free_port()
        self.address = f"rtsp://127.0.0.1:{self.port}/live"
        command = [SYSTEM_PYTHON, "-c", RTSP_SCRIPT, str(self.port), pipeline]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"serving\n"

    def kill(self) -> None:
        """Cut every connection, as a camera does whose power fails."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
