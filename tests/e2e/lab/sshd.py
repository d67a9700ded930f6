"""A real sshd with keys, configuration and one user of its own.

Takes the server's namespace (with private files, so that the user exists there only), a folder and whether PAM is
used, as on Debian; gives an SSH server on port 22 where USER may log in with PASSWORD or with the key `user_key`.
It logs to /dev/log: start a Syslog or a Journald before and pass it.
Guarantees: when the constructor returns, port 22 is being listened on.  Open sessions outlive `close`, as they do a
restart of sshd; they end with the namespace.
Does not: wait as pam_unix does after a wrong password (nodelay), so that tests of guessers stay quick.
Source: sshd_config(5), pam_unix(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.journald import Journald
from lab.namespaces import Namespace
from lab.syslog import Syslog

USER, PASSWORD = "labuser", "battery staple"

# As Debian's common-auth, so that sshd hears "wrong" also after pam_unix's third try, not "stop trying".
_PAM = """
auth [success=1 default=ignore] pam_unix.so nodelay
auth requisite pam_deny.so
auth required pam_permit.so
account required pam_unix.so
session required pam_unix.so
"""


class Sshd:
    """A running sshd; a context manager.  settings: sshd_config options, which win over those below."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        syslog: Syslog | Journald,
        settings: Mapping[str, str] | None = None,
        *,
        pam: bool = True,
    ) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.user_key = folder / "user_key"
        self._make_user(namespace, folder)
        for name in ("host_key", "user_key"):
            namespace.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
        (folder / "authorized_keys").write_text(Path(f"{self.user_key}.pub").read_text())
        options = {
            "HostKey": f"{folder}/host_key",
            "PidFile": "none",
            "AuthorizedKeysFile": f"{folder}/authorized_keys",
            "StrictModes": "no",
            "UsePAM": "yes" if pam else "no",
            "PrintMotd": "no",
            "KbdInteractiveAuthentication": "no",  # as Debian ships it
            **(settings or {}),
        }
        conf = folder / "sshd_config"
        conf.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        # From OpenSSH 9.8 on sshd itself turns guessers away for a while; earlier ones do not know the option.
        penalties = ["-o", "PerSourcePenalties=no"]
        if namespace.run(["/usr/sbin/sshd", "-t", "-f", conf, *penalties], check=False).returncode != 0:
            penalties = []
        listening = r"Server listening on 0\.0\.0\.0 port 22"
        before = len(syslog.auth.matching(listening))
        self._process = namespace.daemon(["/usr/sbin/sshd", "-D", "-f", conf, *penalties], folder / "sshd.out")
        try:
            syslog.auth.wait_for(listening, count=before + 1)
        except BaseException:
            self.close()
            raise

    def _make_user(self, namespace: Namespace, folder: Path) -> None:
        home = folder / "home"
        if namespace.run(["getent", "passwd", USER], check=False).returncode == 0:
            return
        namespace.run(["useradd", "--no-log-init", "--create-home", "--home-dir", home, "--shell", "/bin/sh", USER])
        namespace.run(["chpasswd"], input=f"{USER}:{PASSWORD}\n")
        namespace.run(["tee", "/etc/pam.d/sshd"], input=_PAM)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def __enter__(self) -> Sshd:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
