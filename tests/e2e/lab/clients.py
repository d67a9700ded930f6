"""What clients do to a mail or SSH server, well and badly behaved, each from a source address of its own.

Takes the namespaces and a source address out of CLIENT_PREFIXES; gives `Client`, one method per behaviour, and
`Session`, an open SMTP connection.  SMTP is spoken by hand over sockets, since what is to be shown is mostly not SMTP;
SSH is spoken by the real ssh(1).
Guarantees: a misbehaving method returns when the server has closed the connection, or after it has taken the reply to
the misbehaviour and hung up; nothing waits longer than `timeout` seconds (TimeoutError).
Source: RFC 5321, RFC 4954, ssh(1) for SSH_ASKPASS_REQUIRE.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import Sequence

from lab import postfix, sshd
from lab.namespaces import SERVER4, SERVER6, Namespaces

HELO = "client.example.org"
SUBMISSION, SMTPS = 587, 465
IMAPS = 993


class Session:
    """An open SMTP connection.  A lost connection raises ConnectionError, silence TimeoutError."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._buffer = b""

    def send(self, text: str | bytes) -> None:
        """Send exactly this, latin-1 where it is text."""
        self.socket.sendall(text.encode("latin-1") if isinstance(text, str) else text)

    def line(self) -> bytes:
        """The next line without its end."""
        while b"\r\n" not in self._buffer:
            received = self.socket.recv(4096)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def reply(self) -> str:
        """The next reply, all its lines, without the last line end."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines).decode("latin-1")

    def command(self, line: str) -> str:
        """Send one line, take the reply."""
        self.send(line + "\r\n")
        return self.reply()

    def alive(self, timeout: float = 2) -> bool:
        """Does the server still answer a NOOP within that time?"""
        self.socket.settimeout(timeout)
        try:
            return self.command("NOOP")[:1] in "245"
        except OSError:
            return False

    def start_tls(self) -> None:
        """Speak TLS from now on; any certificate will do."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def drain(self) -> bytes:
        """Everything the server sends until it closes."""
        received = self._buffer
        with contextlib.suppress(ConnectionError):
            while more := self.socket.recv(4096):
                received += more
        self._buffer = b""
        return received

    def quit(self) -> None:
        """Leave politely; a client banned meanwhile hears no more and gives up."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send("QUIT\r\n")
            self.drain()
        self.close()

    def abort(self) -> None:
        """Hang up with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Client:
    """Somebody with one address.  source: IPv4 or IPv6, its family decides which address of the server is used."""

    def __init__(self, namespaces: Namespaces, source: str, *, timeout: float = 10) -> None:
        self.source = source
        self._namespaces = namespaces
        self._timeout = timeout
        self._six = ":" in source

    def connect(self, port: int) -> socket.socket:
        """A TCP connection to the server; raises TimeoutError where SYNs are dropped."""
        sock = self._namespaces.client.socket(socket.AF_INET6 if self._six else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._timeout)
            sock.bind((self.source, 0))
            sock.connect((SERVER6 if self._six else SERVER4, port))
        except BaseException:
            sock.close()
            raise
        return sock

    # -- SMTP: the good ---------------------------------------------------------------------------------------------

    def banner(self, port: int = 25) -> str:
        """The 220 line; raises TimeoutError when nothing comes."""
        with Session(self.connect(port)) as s:
            line = s.reply()
            s.quit()
        return line

    def open_session(self, port: int = 25, *, helo: str | None = HELO) -> Session:
        """A connection that has taken the banner and said EHLO; on 465 over TLS, on 587 after STARTTLS."""
        s = Session(self.connect(port))
        try:
            if port == SMTPS:
                s.start_tls()
            s.reply()
            if helo is not None:
                s.command(f"EHLO {helo}")
            if port == SUBMISSION:
                if s.command("STARTTLS")[:3] != "220":
                    raise RuntimeError("no STARTTLS")
                s.start_tls()
                s.command(f"EHLO {helo or HELO}")
        except BaseException:
            s.close()
            raise
        return s

    def deliver(self, port: int = 25, *, helo: str = HELO) -> str:
        """Send a message to the mailbox; the reply to its end."""
        with self.open_session(port, helo=helo) as s:
            s.command("MAIL FROM:<carol@example.org>")
            s.command(f"RCPT TO:<{postfix.MAILBOX}>")
            s.command("DATA")
            reply = s.command(f"From: carol@example.org\r\nTo: {postfix.MAILBOX}\r\nSubject: hello\r\n\r\nHello.\r\n.")
            s.quit()
        return reply

    def sasl_login(self, port: int, user: str = postfix.MAILBOX, password: str = postfix.PASSWORD) -> str:
        """Authenticate by AUTH PLAIN and leave; the reply (235 or 535)."""
        return self.sasl_guess(port, user, password)

    # -- SMTP: the bad ----------------------------------------------------------------------------------------------

    def sasl_guess(
        self,
        port: int = SUBMISSION,
        user: str = postfix.MAILBOX,
        password: str = "123456",
        mechanism: str = "PLAIN",
        *,
        hang_up: bool = False,
    ) -> str:
        """One AUTH by PLAIN or LOGIN; the reply.  hang_up: drop the line after it instead of saying QUIT."""
        with self.open_session(port) as s:
            if mechanism == "PLAIN":
                reply = s.command("AUTH PLAIN " + _base64(f"\0{user}\0{password}"))
            else:
                s.command("AUTH LOGIN")
                s.command(_base64(user))
                reply = s.command(_base64(password))
            if not hang_up:
                s.quit()
        return reply

    def say(self, *lines: str, port: int = 25) -> list[str]:
        """Take the banner, send line by line, take each reply until the server hangs up, then leave."""
        replies: list[str] = []
        with Session(self.connect(port)) as s:
            s.reply()
            try:
                for line in lines:
                    replies.append(s.command(line))  # in a loop, so that those before a hang-up are kept
                s.quit()
            except ConnectionError:
                pass
        return replies

    def lone_dot(self, port: int = 25) -> list[str]:
        """A line that holds a dot."""
        return self.say(".", port=port)

    def empty_lines(self, n: int = 3, port: int = 25) -> list[str]:
        return self.say(*[""] * n, port=port)

    def unknown_commands(self, n: int = 1, port: int = 25) -> list[str]:
        """Commands that do not exist; from the 20th on Postfix hangs up (smtpd_hard_error_limit)."""
        return self.say(*["XYZZY plugh"] * n, port=port)

    def raw(self, data: bytes, port: int = 25, *, greeted: bool = True) -> bytes:
        """Send bytes in one segment, take everything until the server closes.  greeted: after the banner's first line.

        The sending side is closed behind them, so that a server that waits for more sees the end.
        """
        with Session(self.connect(port)) as s:
            if greeted:
                s.line()
            s.send(data)
            with contextlib.suppress(OSError):
                s.socket.shutdown(socket.SHUT_WR)
            return s.drain()

    def http(self, port: int = 25) -> bytes:
        """A request that a web scanner would send."""
        return self.raw(b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\nUser-Agent: zgrab/0.x\r\n\r\n", port)

    def tls_bytes(self, port: int = 25) -> bytes:
        """A ClientHello where STARTTLS was not asked for."""
        outgoing = ssl.MemoryBIO()
        hello = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            ssl.MemoryBIO(), outgoing, server_hostname="mx.example"
        )
        with contextlib.suppress(ssl.SSLWantReadError):
            hello.do_handshake()
        return self.raw(outgoing.read(), port)

    def pipelined(self, port: int = 25) -> bytes:
        """EHLO and a transaction in one segment, without waiting to hear whether PIPELINING is offered."""
        return self.raw(b"EHLO spam.example\r\nMAIL FROM:<a@spam.example>\r\nRCPT TO:<x@example.com>\r\nDATA\r\n", port)

    def pregreet(self, port: int = postfix.POSTSCREEN_PORT) -> bytes:
        """Talk before the banner."""
        return self.raw(b"EHLO spam.example\r\n", port, greeted=False)

    def rcpt_reject(self, recipient: str = "victim@example.com", *, helo: str = HELO, port: int = 25) -> str:
        """A recipient that Postfix refuses (a relay attempt unless told otherwise); the reply to RCPT."""
        with self.open_session(port, helo=helo) as s:
            s.command("MAIL FROM:<spammer@example.org>")
            reply = s.command(f"RCPT TO:<{recipient}>")
            s.quit()
        return reply

    def silence(self, port: int = 25) -> bytes:
        """Say nothing until the server gives up (smtpd_timeout; set it low)."""
        with Session(self.connect(port)) as s:
            return s.drain()

    def hang_up(self, *lines: str, port: int = 25) -> None:
        """Say these lines (none: right after the banner), then drop the connection without QUIT."""
        with Session(self.connect(port)) as s:
            s.reply()
            for line in lines:
                s.command(line)

    # -- IMAP -------------------------------------------------------------------------------------------------------

    def imap(self, *commands: str | bytes, port: int = 143) -> list[bytes]:
        """Take the greeting, send each command (its tag is added) and take the lines up to its answer, then log out."""
        replies: list[bytes] = []
        with Session(self.connect(port)) as s:
            if port == IMAPS:
                s.start_tls()
            s.line()
            for command in (*commands, "LOGOUT"):
                s.send(b"a " + (command.encode() if isinstance(command, str) else command) + b"\r\n")
                while not (reply := s.line()).startswith(b"a "):
                    pass
                replies.append(reply[2:])
        return replies[:-1]

    def imap_login(self, user: str, password: str, port: int = 143) -> bool:
        """Authenticate by SASL PLAIN, so that the name may hold anything but NUL; whether it worked."""
        credentials = _base64(f"\0{user}\0{password}")
        (reply,) = self.imap(f"AUTHENTICATE PLAIN {credentials}", port=port)
        return reply.startswith(b"OK")

    # -- SSH --------------------------------------------------------------------------------------------------------

    def ssh(
        self, user: str, password: str | None, *options: str, command: Sequence[str] = ("true",)
    ) -> subprocess.CompletedProcess[str]:
        """Run ssh(1), giving this password at each prompt (None: keys only)."""
        return self._namespaces.client.run(
            [*self._ssh_argv(user, password, options), "--", SERVER6 if self._six else SERVER4, *command],
            check=False,
            timeout=self._timeout,
            env=self._ssh_environment(password),
        )

    def ssh_guess(self, user: str = sshd.USER, password: str = "123456", tries: int = 1) -> int:
        """Try a password `tries` times in one connection; ssh's exit status (255: refused)."""
        return self.ssh(user, password, f"-oNumberOfPasswordPrompts={tries}").returncode

    def ssh_login(self, user: str = sshd.USER, password: str = sshd.PASSWORD) -> int:
        """Log in and out again; 0 when it worked."""
        return self.ssh(user, password).returncode

    def ssh_session(self, user: str = sshd.USER, password: str = sshd.PASSWORD) -> subprocess.Popen[str]:
        """A session that stays open and echoes lines: write a line to stdin, read it back from stdout."""
        argv = [*self._ssh_argv(user, password, ()), "--", SERVER6 if self._six else SERVER4, "cat"]
        pipe = subprocess.PIPE
        session = self._namespaces.client.popen(
            argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=1, env=self._ssh_environment(password)
        )
        assert session.stdin is not None and session.stdout is not None
        session.stdin.write("ready\n")
        line = session.stdout.readline()
        if line != "ready\n":
            session.kill()
            raise ConnectionError(f"no SSH session: {line}{session.communicate()[0]}")
        return session

    def _ssh_argv(self, user: str, password: str | None, options: Sequence[str]) -> list[str]:
        method = "publickey" if password is None else "password,keyboard-interactive"
        return [
            *("ssh", "-F", "none", "-b", self.source, "-l", user, *options, "-oStrictHostKeyChecking=no"),
            *("-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR", f"-oPreferredAuthentications={method}"),
            *(f"-oConnectTimeout={int(self._timeout)}", "-oNumberOfPasswordPrompts=1"),
        ]

    def _ssh_environment(self, password: str | None) -> dict[str, str]:
        # ssh asks this program instead of the terminal, once for every try.
        program = self._namespaces.folder / "askpass"
        if not program.exists():
            program.write_text("#!/bin/sh\nexec printenv LAB_PASSWORD\n")
            program.chmod(0o755)
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self._namespaces.folder),
            "SSH_ASKPASS": str(program),
            "SSH_ASKPASS_REQUIRE": "force",
            "LAB_PASSWORD": password or "",
        }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
