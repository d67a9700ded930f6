"""No client makes a shipped filter see another address than the server wrote, nor a login where there was none.

Every filter has a row in TEMPLATES: lines as its server writes them, with fields for what the client chooses.  A field
is filled with text that makes the line look like any other line of that server about another address (FORGED), as far
as the server lets such text through: `FIELDS` says what each server does to it, as the servers in the .samples files
were seen to.  A filter without a row fails the test.
tests/e2e/test_injection.py does the same with real servers for those that are quickly started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.records import Login, LogLine

FILTERS = Path(__file__).parents[2] / "rules" / "filters"
NOW = 1795552000.0
SERVER, FORGED = "203.0.113.9", "198.51.100.7"


def _escaped(text: str) -> str:
    return "".join(c if " " <= c < "\x7f" else f"\\{ord(c) % 256:03o}" for c in text)


FIELDS: dict[str, Callable[[str], str]] = {
    "c": lambda text: text,
    "word": lambda text: re.sub(r"\s", "", text),
    # A HELO as Exim and Postfix take it; a name as it stands in the DNS.
    "helo": lambda text: re.sub(r"[^\w.:\[\]-]", "", text)[:255],
    "name": lambda text: re.sub(r"[^\w.-]", "", text)[:255] or "x",
    # HTTP ends a user's name at the first colon; nginx refuses a request line with a blank in its path.
    "httpuser": lambda text: text.partition(":")[0],
    "path": lambda text: re.sub(r"\s", "%20", text),
    # rspamd's message ids, vsftpd's passwords, OpenSMTPD's users, Exim's everything.
    "mid": lambda text: re.sub(r"\s", "?", text),
    "under": lambda text: re.sub(r"\s", "_", text),
    "vis": lambda text: text.replace(" ", "\\040"),
    "print": _escaped,
}
FIELD = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")

DOVECOT_END = "user=<{c}>, method=PLAIN, rip={a}, lip=192.0.2.1, TLS, session=<AbCdEf0123456789>"
DATE = "Nov 24 20:00:00 "
TEMPLATES: dict[str, tuple[str, ...]] = {
    "apache": (
        "[Tue Nov 24 20:00:00.1 2026] [auth_basic:error] [pid 3:tid 4] [client {a}:4711] AH01617: user {httpuser}: "
        'authentication failure for "{path}": Password Mismatch, referer: {c}',
        "[Tue Nov 24 20:00:00.1 2026] [auth_basic:error] [pid 3:tid 4] [client {a}:4711] AH01618: user {httpuser} not "
        "found: {path}",
        "[Tue Nov 24 20:00:00.1 2026] [auth_digest:error] [pid 3:tid 4] [client {a}:4711] AH01790: user `{c}' in realm "
        "`{c}' not found: {path}",
        "[Tue Nov 24 20:00:00.1 2026] [core:error] [pid 3:tid 4] [client {a}:4711] AH10244: invalid URI path ({c})",
        "[Tue Nov 24 20:00:00.1 2026] [php:notice] [pid 3:tid 4] [client {a}:4711] {c}",
    ),
    "courier": (
        DATE + "mail imapd: LOGIN FAILED, user={c}, ip=[::ffff:{a}], port=[4711]",
        DATE + "mail pop3d: LOGIN FAILED, user={c}, ip=[{a}]",
        DATE + "mail imapd: LOGIN, user=bob, ip=[::ffff:{a}], port=[4711], protocol=IMAP",
        DATE + "mail pop3d: LOGIN, user=bob, ip=[::ffff:{a}], port=[4711]",
        DATE + "mail courieresmtpd: error,relay=::ffff:{a},from=<{c}>,to=<{c}>: 550 User unknown.",
        DATE + 'mail courieresmtpd: error,relay={a},msg="535 Authentication failed.",cmd: {c}',
    ),
    "cyrus-imapd": (
        DATE + "mail cyrus/imap[9]: badlogin: {name} [{a}] plaintext ({c}) [SASL(-13): authentication failure: x]",
        DATE + "mail cyrus/imap[9]: badlogin: [{a}] plaintext ({c}) invalid user",
        DATE + "mail cyrus/imap[9]: badlogin: [{a}] plaintext {c} SASL(-13): user not found: checkpass failed",
        DATE + "mail cyrus/imap[9]: login: [{a}] bob plaintext User logged in SESSIONID=<mail-1-2>",
    ),
    "dovecot": (
        DATE + "mail dovecot: imap-login: Disconnected: Connection closed (auth failed, 1 attempts in "
        "2 secs): " + DOVECOT_END,
        DATE + "mail dovecot: imap-login: Login aborted: Logged out (auth failed, 1 attempts in 0 secs) (auth_failed): "
        + DOVECOT_END,
        DATE + "imap-login: Info: Aborted login (auth failed, 2 attempts in 2 secs): user=<{c}>, "
        "rip={a}, lip=192.0.2.1",
        DATE + "mail dovecot: imap-login: Disconnected: Too many invalid commands (no auth attempts in 0 secs): "
        + DOVECOT_END,
        DATE + "mail dovecot: auth: passwd-file({c},{a},<AbCdEf0123456789>): unknown user (SHA1 of "
        "given password: 7c4a8d)",
        DATE + "mail dovecot: auth: ldap({c},{a},<AbCdEf0123456789>): invalid credentials (given password: {c})",
        DATE + "mail dovecot: auth({c},{a},sasl:plain)<AbCdEf0123456789>: passwd-file: Password mismatch",
        DATE + "mail dovecot: auth: plain(?,{a},<AbCdEf0123456789>): Username character disallowed by "
        "auth_username_chars: 0x20 (username: {c})",
        DATE + "mail dovecot: imap(bob)<9><AbCdEf0123456789>: Error: {c}",
        DATE + "mail dovecot: imap-login: Login: user=<bob>, method=PLAIN, rip={a}, lip=192.0.2.1, mpid=5, TLS, "
        "session=<AbCdEf0123456789>",
    ),
    "exim": (
        "2026-11-24 20:00:00 plain_server authenticator failed for {name} ({helo}) [{a}]: 535 Incorrect authentication "
        "data (set_id={print})",
        "2026-11-24 20:00:00 H=({helo}) [{a}] F=<{print}> rejected RCPT <{print}>: {print}",
        DATE + "mail exim[7]: H={name} ({helo}) [{a}]:4711 I=[192.0.2.1]:25 F=<{print}> rejected MAIL <{print}>: x",
        '2026-11-24 20:00:00 SMTP syntax error in "{print}" H=({helo}) [{a}] unrecognized command',
        '2026-11-24 20:00:00 SMTP syntax error in "{print}" H=({helo}) [{a}] malformed address: {print} may not follow '
        "{print}",
        '2026-11-24 20:00:00 SMTP call from ({helo}) [{a}] dropped: too many unrecognized '
        'commands (last was "{print}")',
        "2026-11-24 20:00:00 rejected HELO from [{a}]: syntactically invalid argument(s): {print}",
        "2026-11-24 20:00:00 SMTP protocol synchronization error (input sent without waiting for greeting): rejected "
        'connection from H=[{a}] input="{print}"',
        "2026-11-24 20:00:00 SMTP protocol synchronization error (next input sent too soon: pipelining was not "
        'advertised): rejected "{print}" H=({helo}) [{a}] next input="{print}"',
        "2026-11-24 20:00:00 1xW01e-00000h-1H <= \"{print}\"@b.example H=({helo}) [{a}] "
        "P=esmtps X=TLS1.3:X:256 CV=no SNI=\"{print}\" "
        'S=1 T="{print}"',
        "2026-11-24 20:00:00 1xW01e-00000h-1H <= a@b.example H=({helo}) [{a}] P=esmtpsa "
        "X=TLS1.3:X:256 CV=no A=plain:bob",
        "2026-11-24 20:00:00 1xW01e-00000h-1H ** {print}: {print}",
    ),
    "nginx": (
        '2026/11/24 20:00:00 [error] 3#3: *1 user "{httpuser}": password mismatch, client: {a}, '
        'server: x, request: "GET '
        '{path} HTTP/1.1", host: "{c}", referrer: "{c}"',
        '2026/11/24 20:00:00 [error] 3#3: *1 user "{httpuser}" was not found in "/etc/x", client: {a}, server: x, '
        'request: "GET {path} HTTP/1.1", host: "{c}", referrer: "{c}"',
        '2026/11/24 20:00:00 [error] 3#3: *1 open() "{path}" failed (2: No such file or '
        'directory), client: {a}, server: '
        'x, request: "GET {path} HTTP/1.1", host: "{c}"',
        "2026/11/24 20:00:00 [error] 3#3: *1 access forbidden by rule, client: {a}, server: x, request: \"GET {path} "
        'HTTP/1.1", host: "{c}"',
    ),
    "opensmtpd": (
        DATE + "mail smtpd[9]: 0123456789abcdef smtp connected address={a} host={name}",
        DATE + "mail smtpd[9]: 0123456789abcdef smtp authentication user={vis} result=permfail",
        DATE + 'mail smtpd[9]: 0123456789abcdef smtp failed-command command="{c}" result="500 5.5.1 Invalid command: '
        'Command unrecognized"',
        DATE + 'mail smtpd[9]: 0123456789abcdef smtp failed-command command="RCPT TO:<{c}>" result="550 Invalid '
        'recipient: <{c}>"',
        DATE + "mail smtpd[9]: 0123456789abcdef smtp message msgid=1 size=1 nrcpt=1 proto=ESMTP from=<{c}> to=<{c}>",
    ),
    "postfix": (
        DATE + "mail postfix/smtpd[7]: warning: non-SMTP command from {name}[{a}]: {c}",
        DATE + "mail postfix/smtpd[7]: warning: unknown[{a}]: SASL LOGIN authentication failed: x, sasl_username={c}",
        DATE + "mail postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[{a}]: 554 5.7.1 <{c}>: Relay access denied; "
        "from=<{c}> to=<{c}> proto=ESMTP helo=<{c}>",
        DATE + "mail postfix/postscreen[7]: PREGREET 11 after 0.1 from [{a}]:4711: {c}",
        DATE + "mail postfix/smtpd[7]: disconnect from unknown[{a}] auth=1 quit=1 commands=2",
        DATE + "mail postfix/cleanup[7]: 4A1B2C3D4E: warning: header Subject: {c}",
    ),
    "proftpd": (
        DATE + "mail proftpd[9]: mail ({name}[{a}]) - USER {c} (Login failed): Incorrect password",
        "2026-11-24 20:00:00,123 mail proftpd[9] mail ({a}[{a}]): USER {c}: no such user found from {a} [{a}] to "
        "::ffff:192.0.2.1:21",
        DATE + "mail proftpd[9]: mail ({a}[{a}]) - USER bob: Login successful.",
        DATE + "mail proftpd[9]: mail ({a}[{a}]) - Refused PORT {c} (address mismatch)",
    ),
    "roundcube": (
        "[24-Nov-2026 20:00:00 +0000]: <abc12345> IMAP Error: Login failed for {c} against 127.0.0.1 from {a} "
        "(X-Real-IP: {c},X-Forwarded-For: {c}). AUTHENTICATE PLAIN: x. in /x.php on line 1 (POST /?_task=login)",
        "[24-Nov-2026 20:00:00 +0000]: <abc12345> Failed login for {c} from {a} in session abcd (error: 0)",
        "[24-Nov-2026 20:00:00 +0000]: <abc12345> Failed login for {c} from {a} (X-Forwarded-For: {c}) in session abcd "
        "(error: 0)",
        "[24-Nov-2026 20:00:00 +0000]: FAILED login for {c} from {a}",
        "[24-Nov-2026 20:00:00 +0000]: <abc12345> Successful login for bob (ID: 1) from {a} (X-Forwarded-For: {c}) in "
        "session abcd",
    ),
    "rspamd": (
        "2026-11-24 20:00:00 #4(controller) rspamd_controller_check_password: absent or incorrect password has been "
        "specified; source ip: {a}:4711",
        "2026-11-24 20:00:00 #4(normal) <abc123>; task; rspamd_task_write_log: id: <{mid}>, qid: <ABC>, ip: {a}, from: "
        "<{c}>, (default: T (reject): [15.00/15.00] [X(1){{{c}}}]), len: 1, rcpts: <{c}>",
        "2026-11-24 20:00:00 #4(normal) <abc123>; task; rspamd_task_write_log: id: <{mid}>, qid: <ABC>, ip: {a}, user: "
        "{c}, from: <{c}>, (default: F (no action): [1.00/15.00] [X(1){{}}]), len: 1",
        "2026-11-24 20:00:00 #4(normal) <abc123>; task; rspamd_message_parse: loaded message; "
        "id: <{mid}>; queue-id: <A>",
    ),
    "sendmail": (
        DATE + "mail sm-mta[9]: 6AONjj6B000069: AUTH failure (PLAIN): user not found (-20) SASL(-13): "
        "user not found: x, "
        "user={print}, relay={name} [{a}]",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: ruleset=check_rcpt, arg1=<\"{print}\"@{name}>, relay=[{a}] (may be "
        "forged), reject=550 5.7.1 <\"{print}\"@{name}>... Relaying denied",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: ruleset=check_rcpt, arg1=<{word}>, relay=[{a}], reject=550 5.7.1 "
        "<{word}>... Relaying denied",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: [{a}]: VRFY {print} [rejected]",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: [{a}]: probable open proxy: command={print}",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: from=<{print}>, size=0, class=0, nrcpts=0, proto=ESMTP, daemon=MTA, "
        "relay=[{a}]",
        DATE + "mail sm-mta[9]: 6AONjj6B000069: <{print}>... User unknown",
        DATE + "mail sm-mta[9]: AUTH=server, relay=[{a}], authid=bob, mech=PLAIN, bits=0",
    ),
    "sogo": (
        DATE + "sogod [9]: SOGoRootPage Login from '{a}' for user '{c}' might not have worked - "
        "password policy: 65535  "
        "grace: -1  expire: -1  bound: 0",
        DATE + "sogod [9]: SOGoRootPage Login from '{c}, {a}' for user '{c}' might not have worked - password policy: "
        "65535  grace: -1  expire: -1  bound: 0",
        DATE + "sogod [9]: SOGoRootPage successful login from '{c}, {a}' for user 'bob' - expire = -1  grace = -1",
    ),
    "sshd": (
        DATE + "mail sshd[7]: Invalid user {c} from {a} port 4711",
        DATE + "mail sshd[7]: Failed password for invalid user {c} from {a} port 4711 ssh2",
        DATE + "mail sshd[7]: Connection closed by invalid user {c} {a} port 4711 [preauth]",
        DATE + "mail sshd[7]: Accepted password for bob from {a} port 4711 ssh2",
        DATE + "mail sshd[7]: Bad protocol version identification '{c}' from {a} port 4711",
    ),
    "vsftpd": (
        'Tue Nov 24 20:00:00 2026 [pid 9] [{c}] FAIL LOGIN: Client "{a}"',
        'Tue Nov 24 20:00:00 2026 [pid 9] [ftp] OK LOGIN: Client "{a}", anon password "{under}"',
        'Tue Nov 24 20:00:00 2026 [pid 9] [bob] OK LOGIN: Client "{a}"',
        DATE + 'mail vsftpd[9]: [{c}] FAIL LOGIN: Client "::ffff:{a}"',
        DATE + "mail vsftpd: pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser={c} "
        "rhost={a}  user={c}",
    ),
}  # fmt: skip
# What a server writes when, and only when, somebody has logged in.
LOGIN = re.compile(
    r"OK LOGIN: Client \"[^\"]*\"$|LOGIN, user=bob|: login: |imap-login: Login: "
    r"|P=esmtpsa X|Successful login for bob"
    r"|AUTH=server|successful login from '|Accepted password|Login successful\.$|auth=1 quit=1"
)
CASES = [(name, template) for name, templates in TEMPLATES.items() for template in templates]


def _modes(name: str) -> Iterator[Filter]:
    header = (FILTERS / f"{name}.conf").read_text().partition("[Definition]")[0]
    # `aggressive` has all rules of the others.
    for mode in {"normal", "aggressive"} & set(re.findall(r"^#   ([a-z]+)  ", header, re.MULTILINE)) or {""}:
        loaded = filterfile.load(f"{name}[mode={mode}]" if mode else name, [FILTERS])
        assert isinstance(loaded, Filter), loaded
        yield loaded


MODES = {name: list(_modes(name)) for name in TEMPLATES}


def filled(template: str, texts: Iterator[str]) -> str:
    """The line as the server writes it, its address SERVER, each field as the server lets the next text through."""
    pieces = FIELD.split(template)
    for at in range(1, len(pieces), 2):
        pieces[at] = FIELDS[pieces[at]](next(texts).replace("\n", " "))
    return "".join(pieces).replace("{{", "{").replace("}}", "}").replace("{a}", SERVER)


NEXT = {name: filled(templates[0], repeat("x")) for name, templates in TEMPLATES.items()}


@cache
def payloads(name: str) -> list[str]:
    """Lines of this server about FORGED, whole and from each blank or bracket on, and addresses in every dress."""
    out = [
        f"x[{FORGED}]: SASL LOGIN authentication failed: y", f"GET /[{FORGED}]: HTTP/1.1", f" from {FORGED} port 22",
        f"rip={FORGED}", f" [{FORGED}]", FORGED, f"::ffff:{FORGED}", f"x\x00[{FORGED}]", f"\u202e{FORGED}\u202c",
        f"fe80::1%{FORGED}", f"[{FORGED}%eth0]", "198.051.100.007", f"\\xc0\\xaf[{FORGED}]", "x" * 4000 + f"[{FORGED}]",
    ]  # fmt: skip
    for template in TEMPLATES[name]:
        line = FIELD.sub("x", template.replace("{a}", FORGED)).replace("{{", "{").replace("}}", "}")
        cuts = [at for at, c in enumerate(line) if c in " \"'<>[]()"]
        out += [line, *(line[at:] for at in cuts), *(line[at + 1 :] for at in cuts)]
        out += [line[:at] for at in cuts]
    return list(dict.fromkeys(out))


def test_every_filter_is_tried() -> None:
    assert set(filterfile.available([FILTERS])) - {"common"} == set(TEMPLATES)


@pytest.mark.parametrize(("name", "template"), CASES)
def test_the_untouched_line_is_the_server_s(name: str, template: str) -> None:
    """What the other tests rest on: nothing, or the server's address; a login where there was one."""
    line = filled(template, repeat("x"))
    found = [Matcher(each).match(LogLine("log", line), NOW) for each in MODES[name]]
    assert all(each is None or str(each.prefix) == SERVER for each in found)
    assert any(isinstance(each, Login) for each in found) == bool(LOGIN.search(line)), line


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_filter_s_rows_do_match(name: str) -> None:
    lines = [filled(template, repeat("x")) for template in TEMPLATES[name]]
    for each in MODES[name]:
        matcher = Matcher(each)
        assert any(matcher.match(LogLine("log", line), NOW) for line in lines), each.spec


def _holds(name: str, line: str, login: bool) -> None:
    for each in MODES[name]:
        matcher = Matcher(each)
        for text in (line, NEXT[name]):  # what a line left behind must not give the next one another address either
            result = matcher.match(LogLine("log", text), NOW)
            assert result is None or str(result.prefix) == SERVER, (each.spec, text)
            assert login or text != line or not isinstance(result, Login), (each.spec, text)


@pytest.mark.parametrize(("name", "template"), CASES)
def test_no_text_of_the_client_names_another(name: str, template: str) -> None:
    """Every field alone with every payload, the others harmless."""
    login = bool(LOGIN.search(filled(template, repeat("x"))))
    fields = len(FIELD.findall(template))
    for payload in payloads(name):
        for field in range(fields):
            texts = ["x"] * fields
            texts[field] = payload
            _holds(name, filled(template, iter(texts)), login)


@pytest.mark.parametrize(("name", "template"), CASES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_nor_do_several_texts_together(name: str, template: str, data: st.DataObject) -> None:
    login = bool(LOGIN.search(filled(template, repeat("x"))))
    known = st.sampled_from(payloads(name))
    junk = st.text(max_size=6)
    fields = len(FIELD.findall(template))
    texts = [data.draw(junk) + data.draw(known | junk) + data.draw(junk | known) for _ in range(fields)]
    _holds(name, filled(template, iter(texts)), login)


@pytest.mark.parametrize(("name", "template"), CASES)
@pytest.mark.parametrize(
    "written",
    [f"::ffff:{SERVER}", "203.0.113.009", "fe80::1%eth0", "2001:db8::9%1", "203.0.113.9.4", "0203.0.113.9", ""],
)
def test_odd_addresses_are_the_server_s_or_nobody_s(name: str, template: str, written: str) -> None:
    line = filled(template.replace("{a}", written), repeat("x"))
    for each in MODES[name]:
        result = Matcher(each).match(LogLine("log", line), NOW)
        assert result is None or str(result.prefix) in (SERVER, "fe80::1", "2001:db8::9"), (each.spec, line)


@pytest.mark.parametrize("name", TEMPLATES)
def test_hostile_bytes_do_no_harm(name: str) -> None:
    """NUL, control characters, right-to-left marks, overlong and invalid UTF-8, as a source reads them."""
    marks = "\u202e\u2066\u200f".encode()
    for hostile in (b"\x00" * 50, b"\x1b[2J\x07", marks, b"\xc0\xaf\xe0\x80\xaf", b"\xff\xfe", b"\r\r"):
        text = hostile.decode(errors="backslashreplace")
        for template in TEMPLATES[name]:
            line = filled(template, repeat(text))
            _holds(name, line, login=bool(LOGIN.search(filled(template, repeat("x")))))


@pytest.mark.parametrize("name", TEMPLATES)
def test_long_lines_suspend_no_rule(name: str) -> None:
    """However long a client's text is, no rule costs so much that it is suspended (matcher.Matcher's report)."""
    told: list[str] = []
    matchers = [Matcher(each, report=told.append) for each in MODES[name]]
    for template in TEMPLATES[name]:
        for piece in payloads(name)[::15]:
            line = filled(template, repeat(piece * (17_000 // (len(piece) + 1))))
            for matcher in matchers:
                matcher.match(LogLine("log", line), NOW)
    assert not told
