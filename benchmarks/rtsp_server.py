"""An RTSP server on loopback that can be killed and stopped: GStreamer's, in a process of its own.

It needs GStreamer's server for the system's Python:
`apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

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
        """Start it.

        Args:
            pipeline: What it sends, in GStreamer's notation, with a payloader called pay0.
            port: Where it listens on loopback; a free one where not given.
        """
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
