"""A real Dovecot with configuration and one account of its own.

Takes the server's namespace (with private files), a folder and whether it logs to /dev/log, for which a Syslog has to
run, or into `log`; gives IMAP on port 143 and on 993 (TLS) where USER may log in with PASSWORD.
With auth_verbose each attempt is logged, with auth_verbose_passwords=sha1:6 a part of the wrong password's hash.
Guarantees: when the constructor returns, an IMAP client is greeted; after `close` no process of it is left.
Does not: wait after a wrong password (auth_failure_delay, anvil's penalty), so that tests of guessers stay quick.
Source: Dovecot's manual for 2.3 and 2.4, whose configurations differ.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace
from lab.nftban import eventually

USER, PASSWORD = "alice@example.net", "correct horse"
IMAP, IMAPS = 143, 993

_COMMON = """
protocols = imap
auth_verbose = yes
auth_verbose_passwords = sha1:6
auth_mechanisms = plain login
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""
_OLD = """
disable_plaintext_auth = no
state_dir = {folder}/state
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
mail_location = maildir:{folder}/mail/%u
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}/mail/%u
}}
"""
_NEW = """
auth_allow_cleartext = yes
state_dir = {folder}/state
ssl_server_cert_file = {folder}/cert.pem
ssl_server_key_file = {folder}/key.pem
mail_driver = maildir
mail_home = {folder}/mail/%{{user}}
mail_path = ~/m
passdb passwd-file {{
  passwd_file_path = {folder}/users
}}
userdb static {{
  fields {{
    uid = nobody
    gid = nogroup
  }}
}}
"""


class Dovecot:
    """A running Dovecot; a context manager.  `log` is its log unless it logs to syslog."""

    def __init__(self, namespace: Namespace, folder: Path, *, syslog: bool = True) -> None:
        self._namespace, self._conf = namespace, folder / "dovecot.conf"
        folder.mkdir(mode=0o755, exist_ok=True)
        self.log = LogFile(folder / "dovecot.log")
        for name in ("mail", "state"):
            (folder / name).mkdir(mode=0o755)
        os.chown(folder / "mail", pwd.getpwnam("nobody").pw_uid, -1)
        (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}::::::\n")
        namespace.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=mail.example.net"),
            ]
        )
        version = namespace.run(["dovecot", "--version"]).stdout.split()[0]
        # 2.4 wants to be told on its first lines whose configuration this is.
        new = tuple(map(int, re.findall(r"\d+", version)[:2])) >= (2, 4)
        head = f"dovecot_config_version = {version.partition('-')[0]}\ndovecot_storage_version = 2.4.0\n" if new else ""
        self._conf.write_text(
            head
            + _COMMON
            + (_NEW if new else _OLD).format(folder=folder)
            + f"log_path = {'syslog' if syslog else self.log.path}\n"
        )
        self._output = LogFile(folder / "dovecot.out")
        # It closes every file that it could have open: with a limit of a million that takes seconds.
        self._process = namespace.daemon(
            ["prlimit", "--nofile=1024", "dovecot", "-F", "-c", self._conf], self._output.path
        )
        try:
            eventually(self._greeted, "an IMAP client is greeted", timeout=30)
        except BaseException:
            self.close()
            raise

    def _greeted(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError("Dovecot does not start:\n" + "\n".join(self._output.lines))
        with self._namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
            s.settimeout(20)
            # The port is open before there is a login process; the connection waits for it.
            return s.connect_ex(("127.0.0.1", IMAP)) == 0 and s.recv(1024).startswith(b"* OK")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def __enter__(self) -> Dovecot:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
