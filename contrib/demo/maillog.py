"""The mail log, written line by line as Postfix and Debian's rsyslog write it.

Takes a program (`smtpd`, `submission/smtpd`, ...) and its message; appends `TIME HOST postfix/PROGRAM[PID]: MESSAGE`
to the file and gives that line.  TIME is RFC 3339 in local time, microseconds included (rsyslog's
RSYSLOG_FileFormat, Debian's default since 12).  Each client is served by an smtpd of its own, so lines of different
clients may mix as they do in a real log.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

HOST = "mail"
_FIRST_PID = 2101


class MailLog:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._pids: dict[tuple[str, str], int] = {}

    def write(self, program: str, message: str, client: str) -> str:
        """client: whose process this is."""
        own = client if program.endswith("smtpd") else ""
        pid = self._pids.setdefault((program, own), _FIRST_PID + len(self._pids))
        time = datetime.now(UTC).astimezone().isoformat(timespec="microseconds")
        line = f"{time} {HOST} postfix/{program}[{pid}]: {message}"
        self._file.write(line + "\n")
        return line

    def __enter__(self) -> MailLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
