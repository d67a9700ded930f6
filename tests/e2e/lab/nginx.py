"""Debian's nginx with a folder of lists, as an operator has them on the net.

Takes a namespace, an address and a folder; gives `Nginx`: files below `lists` are served with ETag and Last-Modified,
under /slow/ four kilobytes a second of the same.  `log` is its access log: status, path and User-Agent of each request.
Source: nginx.org/en/docs.
"""

from __future__ import annotations

from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr notice;
events {{ }}
http {{
    log_format plain '$status $request_uri "$http_user_agent"';
    access_log {folder}/access.log plain;
    {temporary}
    server {{
        listen {address}:80;
        root {folder}/lists;
        location /slow/ {{
            alias {folder}/lists/;
            limit_rate 4k;
        }}
    }}
}}
"""


class Nginx:
    """A running nginx; a context manager, and to be started again after `close`."""

    def __init__(self, namespace: Namespace, folder: Path, address: str) -> None:
        self._namespace, self._folder = namespace, folder
        self.lists = folder / "lists"
        self.lists.mkdir(parents=True, mode=0o755)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, address=address, temporary=temporary))
        self.log = LogFile(folder / "access.log")
        self.start()

    def start(self) -> None:
        """Returns when it serves."""
        log = LogFile(self._folder / "error.log")
        self._process = self._namespace.daemon(["nginx", "-e", "stderr", "-c", self._folder / "nginx.conf"], log.path)
        log.wait_for("start worker process ")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
