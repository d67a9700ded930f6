"""A real Postfix with folders and configuration of its own.

Takes the server's namespace and a folder; gives a mail server for example.net with one mailbox and one account,
MAILBOX / PASSWORD, on port 25 (smtpd), 587 (submission, STARTTLS), 465 (submissions, TLS) and 2525 (postscreen with
dnsblog in front of the same smtpd).  It logs into `log`, by postlogd, or into /dev/log when told so.
Guarantees: when the constructor returns, all ports are being listened on; after `close` no process of it is left
(and the namespace kills what would be).  The client limits that would slow a test down (error sleep, stress) are off.
Source: postconf(5), master(5), MAILLOG_README, POSTSCREEN_README.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from lab.logfile import LogFile
from lab.namespaces import Namespace

HOSTNAME, DOMAIN = "mail.example.net", "example.net"
MAILBOX, PASSWORD = "alice@example.net", "correct horse"
POSTSCREEN_PORT = 2525

# Customers, who may well stand in a DNSBL, are refused for a missing login only.
_SUBMIT = "-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject"
_MASTER = f"""
smtp       inet  n - n - - smtpd
submission inet  n - n - - smtpd -o syslog_name=postfix/submission -o smtpd_tls_security_level=may {_SUBMIT}
smtps      inet  n - n - - smtpd -o syslog_name=postfix/smtps -o smtpd_tls_wrappermode=yes {_SUBMIT}
{POSTSCREEN_PORT}       inet  n - n - 1 postscreen
smtpd      pass  - - n - - smtpd
dnsblog    unix  - - n - 0 dnsblog
tlsproxy   unix  - - n - 0 tlsproxy
pickup     unix  n - n 60 1 pickup
cleanup    unix  n - n - 0 cleanup
qmgr       unix  n - n 300 1 qmgr
rewrite    unix  - - n - - trivial-rewrite
bounce     unix  - - n - 0 bounce
defer      unix  - - n - 0 bounce
trace      unix  - - n - 0 bounce
verify     unix  - - n - 1 verify
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n - - proxymap
proxywrite unix  - - n - 1 proxymap
error      unix  - - n - - error
retry      unix  - - n - - error
discard    unix  - - n - - discard
virtual    unix  - n n - - virtual
anvil      unix  - - n - 1 anvil
scache     unix  - - n - 1 scache
tlsmgr     unix  - - n 1000? 1 tlsmgr
postlog    unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running Postfix; a context manager.  `log` is its log unless it logs to syslog.

    settings: main.cf parameters that are added or replaced, as {"smtpd_timeout": "5s"}.
    syslog: send the log to /dev/log; then start a Syslog before.
    """

    def __init__(
        self, namespace: Namespace, folder: Path, settings: Mapping[str, str] | None = None, *, syslog: bool = False
    ) -> None:
        self._namespace = namespace
        self._conf = folder / "etc"
        self.log = LogFile(folder / "mail.log")
        folder.mkdir(mode=0o755, exist_ok=True)
        for name in ("etc", "etc/sasl", "queue", "data", "mail"):
            Path(folder, name).mkdir(mode=0o755)
        owner = pwd.getpwnam("postfix").pw_uid
        os.chown(folder / "data", owner, -1)
        os.chown(folder / "mail", owner, -1)
        self._make_certificate()
        self._make_account(folder, owner)
        main = _main_settings(folder, owner, syslog) | dict(settings or {})
        for name, text in (
            ("main.cf", "".join(f"{name} = {value}\n" for name, value in main.items())),
            ("master.cf", _MASTER),
        ):
            (self._conf / name).write_text(text)
            os.utime(self._conf / name, (0, 0))  # Postfix waits for two seconds where a file may still be in writing
        # `postfix start` makes the queue's folders and returns when the master listens on every port.
        namespace.run(["postfix", "-c", self._conf, "start"], timeout=60)

    def _make_certificate(self) -> None:
        self._namespace.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-keyout", self._conf / "key.pem", "-out", self._conf / "cert.pem"),
                *("-subj", f"/CN={HOSTNAME}", "-days", "2"),
            ]
        )

    def _make_account(self, folder: Path, owner: int) -> None:
        base = folder / "data/sasldb2"
        user, domain = MAILBOX.split("@")
        self._namespace.run(["saslpasswd2", "-p", "-c", "-f", base, "-u", domain, user], input=PASSWORD)
        os.chown(base, owner, -1)
        (self._conf / "sasl/smtpd.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {base}\nmech_list: PLAIN LOGIN\n"
        )

    def close(self) -> None:
        self._namespace.run(["postfix", "-c", self._conf, "stop"], check=False, timeout=60)

    def __enter__(self) -> Postfix:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _main_settings(folder: Path, owner: int, syslog: bool) -> dict[str, str]:
    return {
        "compatibility_level": "3.6",
        "queue_directory": f"{folder}/queue",
        "data_directory": f"{folder}/data",
        "command_directory": "/usr/sbin",
        "daemon_directory": "/usr/lib/postfix/sbin",
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        **({} if syslog else {"maillog_file": f"{folder}/mail.log", "maillog_file_prefixes": str(folder)}),
        "inet_interfaces": "all",
        "inet_protocols": "all",
        "myhostname": HOSTNAME,
        "mydomain": DOMAIN,
        "mynetworks": "127.0.0.0/8",
        "mydestination": "",
        "alias_maps": "",
        "local_recipient_maps": "",
        "virtual_mailbox_domains": DOMAIN,
        "virtual_mailbox_base": f"{folder}/mail",
        "virtual_mailbox_maps": "inline:{ {" + MAILBOX + " = alice} }",
        "virtual_uid_maps": f"static:{owner}",
        "virtual_gid_maps": f"static:{owner}",
        "smtpd_tls_cert_file": f"{folder}/etc/cert.pem",
        "smtpd_tls_key_file": f"{folder}/etc/key.pem",
        "smtpd_tls_security_level": "may",
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_type": "cyrus",
        "cyrus_sasl_config_path": f"{folder}/etc/sasl",  # Debian 12 also looks beside main.cf by itself
        "smtpd_sasl_local_domain": DOMAIN,
        "smtpd_helo_required": "yes",
        "smtpd_helo_restrictions": "reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname",
        "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
        "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject_rbl_client zen.spamhaus.org=127.0.0.[2..11]",
        "smtpd_error_sleep_time": "0",
        "smtpd_forbid_unauth_pipelining": "no",  # the default up to 3.8; later ones hang up at once
        "postscreen_greet_wait": "1s",
        "postscreen_greet_action": "enforce",
        "postscreen_dnsbl_sites": "zen.spamhaus.org=127.0.0.[2..11]*3",
        "postscreen_dnsbl_threshold": "3",
        "postscreen_dnsbl_action": "enforce",
        "postscreen_access_list": "permit_mynetworks",
        "postscreen_cache_map": f"$default_database_type:{folder}/data/postscreen_cache",
    }
