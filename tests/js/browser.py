"""A page in headless Chromium, served from here, and what it posts back."""

import contextlib
import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

SECONDS = 180
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0")


def find_chromium() -> str | None:
    """Return the path of Chromium or Chrome, the one that CHROMIUM names first."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, the cases below /cases/, and takes the answers."""

    extensions_map = {  # noqa: RUF012 # as the standard library declares it
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, cases: Path, answers: queue.Queue[Any], **kwargs: Any) -> None:
        self.cases, self.answers = cases, answers
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        folder, _, name = path.removeprefix("/").partition("/")
        return str(self.cases / Path(name).name) if folder == "cases" else super().translate_path(path)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.answers.put(json.loads(body))

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def answer_in_browser(chromium: str, home: Path, cases: Path) -> dict[str, Any]:
    """Open home/page.html and return what it posts; raises RuntimeError where that is nothing or an error."""
    answers: queue.Queue[Any] = queue.Queue()
    handler = functools.partial(_Handler, directory=str(home), cases=cases, answers=answers)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            found = _open(chromium, f"http://127.0.0.1:{server.server_port}/page.html", answers)
        finally:
            server.shutdown()
    if "error" in found:
        raise RuntimeError(f"page.html: {found['error']}")
    return dict(found)


def _open(chromium: str, address: str, answers: queue.Queue[Any]) -> Any:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, tempfile.TemporaryFile() as log:
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", address]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(SECONDS):
                if process.poll() is not None:
                    break
                with contextlib.suppress(queue.Empty):
                    return answers.get(timeout=1)
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{chromium} ended, or gave no answer in {SECONDS} s; it said:\n{said}")
        finally:
            process.terminate()
            process.wait(timeout=30)
