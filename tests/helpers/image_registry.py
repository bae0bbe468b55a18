"""A container registry with one image: enough of the OCI distribution protocol for `docker pull`.

Usage: image_registry.py PORT TAG LAYER.tar. Every repository name has the image under TAG, no other tag exists.
Prints "ready" when it listens on 127.0.0.1.
"""

import hashlib
import json
import platform
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"  # whether it is compressed is seen from its bytes
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(data: bytes) -> str:
    """Name `data` as registries do."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def documents(tag: str, layer: bytes) -> dict[str, bytes]:
    """Build what the image consists of, by the last part of its address."""
    rootfs = {"type": "layers", "diff_ids": [digest(layer)]}
    architecture = ARCHITECTURES[platform.machine()]
    config = json.dumps({"os": "linux", "architecture": architecture, "config": {}, "rootfs": rootfs}).encode()
    parts = {
        "config": {"mediaType": CONFIG_TYPE, "size": len(config), "digest": digest(config)},
        "layers": [{"mediaType": LAYER_TYPE, "size": len(layer), "digest": digest(layer)}],
    }
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, **parts}).encode()
    return {
        tag: manifest,
        digest(manifest): manifest,
        digest(config): config,
        digest(layer): layer,
    }


class Registry(BaseHTTPRequestHandler):
    """Serves `documents` below /v2/."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve the version check, a manifest or a blob."""
        body = self.server.documents.get(self.path.rpartition("/")[2])  # type: ignore[attr-defined]
        if self.path == "/v2/":
            self._answer(200, b"{}", "application/json")
        elif body is not None:
            self._answer(200, body, MANIFEST_TYPE if "/manifests/" in self.path else "application/octet-stream")
        else:
            error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
            self._answer(404, json.dumps({"errors": [error]}).encode(), "application/json")

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry)
    server.documents = documents(sys.argv[2], Path(sys.argv[3]).read_bytes())  # type: ignore[attr-defined]
    print("ready", flush=True)
    server.serve_forever()
