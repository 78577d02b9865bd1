"""A small made-up data set in MNIST's format, and an HTTP server on loopback that can be made to misbehave."""

import gzip
import hashlib
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fastgan.datasets.idx import IdxDataset, IdxFile

RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (60, 5, 4), dtype=np.uint8),
    "train-labels-idx1-ubyte": RNG.integers(0, 10, 60, dtype=np.uint8),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (20, 5, 4), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 20, dtype=np.uint8),
}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = ARRAYS


def idx_bytes(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


CONTENT = {name: idx_bytes(array) for name, array in ARRAYS.items()}
GZ = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENT.items()}


def made_up(mirrors=(), name="mnist"):
    files = [IdxFile(file, array.shape, hashlib.sha256(CONTENT[file]).hexdigest()) for file, array in ARRAYS.items()]
    return IdxDataset(name, *files, mirrors=tuple(mirrors), num_valid=10, num_validation=5)


def write_files(folder, files=CONTENT):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def isolate(monkeypatch, tmp_path):
    """Let no test see the user's own data sets, cache folder and proxy."""
    monkeypatch.delenv("FASTGAN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


class Server:
    """Serves ``files`` from memory; each request takes the next of ``script``, "honest" when that has run out."""

    def __init__(self, files=GZ):
        self.files = dict(files)
        self.script = []
        self.requests = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append((self.path.strip("/"), self.headers.get("Range")))
                outer.answer(self, outer.script.pop(0) if outer.script else "honest")

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler, behaviour):
        kind, *arguments = behaviour if isinstance(behaviour, tuple) else (behaviour,)
        getattr(self, kind)(handler, self.files.get(handler.path.strip("/").split("/")[-1]), *arguments)

    def _send(self, handler, status, body=b"", length=None, **headers):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if length != "none":
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def honest(self, handler, body, sent=None, length=None):
        """Serve ranges; ``sent`` bytes at most of what was asked for; ``length`` as the Content-Length."""
        if body is None:
            self.status(handler, body, 404)
            return
        start = int((handler.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        if start >= len(body):
            self._send(handler, 416, Content_Range=f"bytes */{len(body)}")
            return
        rest = body[start:]
        headers = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        told = len(rest) if length is None else length
        self._send(handler, 206 if start else 200, rest[:sent], told, **headers)

    def no_ranges(self, handler, body):
        self._send(handler, 200, body)

    def other_range(self, handler, body):
        self._send(handler, 206, body[1:], Content_Range=f"bytes 1-{len(body) - 1}/{len(body)}")

    def status(self, handler, body, code):
        self._send(handler, code, b"<html>no</html>")

    def page(self, handler, body):
        self._send(handler, 200, b"<html>please log in</html>")

    def loop(self, handler, body):
        self._send(handler, 302, Location=handler.path)

    def redirect(self, handler, body, url):
        self._send(handler, 302, Location=url)

    def endless(self, handler, body, code=200, location=None):
        handler.send_response(code)
        if location is not None:
            handler.send_header("Location", location)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(GZ[f"{TRAIN_IMAGES}.gz"][:10] + b"\0" * 65526)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    def no_length(self, handler, body):
        self._send(handler, 200, body, "none")


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()
