"""rsyslogd behind the server's /dev/log, writing the envelope that real log files have.

Takes the server's namespace, a folder and a format: "traditional" is `Nov 24 20:21:00 mail sshd[7]: ` (RFC 3164 4.1,
what Debian 11 and older wrote), "iso" is `2026-11-24T20:21:00.123456+00:00 mail sshd[7]: ` (RFC 3339, Debian 12).
Gives mail.log (facility mail) and auth.log (facilities auth and authpriv), as Debian's rsyslog.conf splits them.
Guarantees: when the constructor returns, a message sent to /dev/log reaches the file.
Source: rsyslog.conf(5), imuxsock's manual.
"""

from __future__ import annotations

import socket
from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace

TEMPLATES = {"traditional": "RSYSLOG_TraditionalFileFormat", "iso": "RSYSLOG_FileFormat"}


class Syslog:
    """A running rsyslogd; a context manager.  `mail` and `auth` are its logs."""

    def __init__(self, namespace: Namespace, folder: Path, format: str = "traditional") -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.mail = LogFile(folder / "mail.log")
        self.auth = LogFile(folder / "auth.log")
        ready = LogFile(folder / "ready.log")
        socket_path = folder.parent / "devlog"  # where the private /dev/log points to
        conf = folder / "rsyslog.conf"
        conf.write_text(
            f"""
module(load="imuxsock" SysSock.Name="{socket_path}" SysSock.Unlink="on")
module(load="builtin:omfile" Template="{TEMPLATES[format]}")
mail.*           {self.mail.path}
auth,authpriv.*  {self.auth.path}
local7.*         {ready.path}
"""
        )
        self._process = namespace.daemon(
            ["rsyslogd", "-n", "-f", conf, "-i", folder / "rsyslogd.pid"], folder / "rsyslogd.out"
        )
        try:
            LogFile(socket_path).wait_for_file()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.sendto(b"<190>Nov 24 20:21:00 lab: ready", str(socket_path))
            ready.wait_for("ready")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Syslog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
