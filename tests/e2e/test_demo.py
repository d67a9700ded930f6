"""The demonstration, run for real: as root and, where the kernel allows, as an ordinary user.

Each run is watched from outside: what it prints, how it ends, and that nothing of it stays on the machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
LIMIT = 60
"""Seconds: the demonstration promises to end in less."""

ESSENTIAL = (
    r"^ +[\d.]+ s  settings  bantime = ",
    r"offence   203\.0\.113\.66: offence 1, found by filter postfix",
    r"dns       203\.0\.113\.66: zen\.spamhaus\.org: LISTED 127\.0\.0\.4",
    r"verdict   203\.0\.113\.66: BANNED for 15 s, 7 of 6 points: \+2 2 offences .* \+4 listed by zen\.spamhaus\.org",
    r"kernel    set ban4_mail has 203\.0\.113\.66, timeout 15 s",
    r"packet    203\.0\.113\.66 to port 25: no answer, dropped",
    r"kernel    set ban4_mail: 203\.0\.113\.66 left by itself; dropped [1-9]\d* packets",
    r"packet    203\.0\.113\.66 to port 25: 220 mail\.example\.net",
    r"verdict   203\.0\.113\.66: BANNED for 30 s",
    r"^203\.0\.113\.66 is BANNED until",
    r"^✔ a banned address is dropped",
    r"^All of it was observed",
)
"""In this order."""

ANYWHERE = (
    r"packet    198\.51\.100\.25 to port 25: 220 mail\.example\.net",
    r"kernel    set ban6net64_mail has 2001:db8:bad:1::/64",
    r"packet    2001:db8:bad:1::c3 to port 25: no answer, dropped",
    r"verdict   203\.0\.113\.87: BANNED for 15 s, 6 of 6 points: .* \+0 listed by zen\.spamhaus\.org .*not counted",
    r"verdict   203\.0\.113\.71: BANNED for 15 s, 6 of 6 points",
    r"verdict   198\.51\.100\.10: 3 of 18 points: .* -4 listed by list\.dnswl\.org",
    r"verdict   198\.51\.100\.77: a successful login .* spares this address",
    r"dns       198\.51\.100\.99: zen\.spamhaus\.org: no usable answer, .*127\.255\.255\.254",
)


@dataclass
class Run:
    """A demonstration under way.  mark: an environment variable that all its processes inherit."""

    process: subprocess.Popen[str]
    mark: str
    scratch: Path

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        while words not in (line := self.process.stdout.readline()):
            assert line, f"ended before {words!r}: {self.process.communicate()}"

    def ended(self) -> Ended:
        out, err = self.process.communicate(timeout=LIMIT)
        return Ended(self.process.returncode, out, err, self.processes())

    def processes(self) -> list[int]:
        """Those that carry the mark."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in environ.read_bytes():
                    found.append(int(environ.parent.name))
        return sorted(found)


class Ended(NamedTuple):
    status: int
    out: str
    err: str
    left_over: list[int]


def start(
    scratch: Path,
    arguments: Sequence[str] = (),
    *,
    prefix: Sequence[str] = (),
    python: Sequence[str] = (sys.executable, ""),
    user: int | None = None,
) -> Run:
    """scratch: its folder for temporary files; prefix: a program that runs it; python: and where packages are."""
    scratch.mkdir()
    if user is not None:
        os.chown(scratch, user, user)
    name, value = "NFTBAN_DEMO_TEST", str(uuid.uuid4())
    process = subprocess.Popen(
        [*prefix, python[0], "-B", "-m", "demo", *arguments],
        cwd="/",
        env={**_environment(python[1], user), "TMPDIR": str(scratch), name: value},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **_as_user(user),
    )
    return Run(process, f"{name}={value}", scratch)


def _environment(packages: str, user: int | None) -> dict[str, str]:
    # Another user may not write coverage's files.
    own = {k: v for k, v in os.environ.items() if user is None or not k.startswith("COVERAGE")}
    return {**own, "PYTHONPATH": f"{ROOT}:{ROOT / 'contrib'}:{packages}"}


def _as_user(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def python_for(user: int) -> tuple[str, str] | str:
    """An interpreter with packages that this user can run in namespaces of its own, or why there is none."""
    if os.geteuid() != 0:
        return "only root can become another user; the other tests run as this one"
    tried = ""
    # Ours may lie in root's home; the system's with our packages does as well.
    for python in ((sys.executable, ""), ("/usr/bin/python3", sysconfig.get_path("platlib"))):
        outcome = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", python[0], "-B", "-c", "import demo.story"],
            env=_environment(python[1], user),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            **_as_user(user),
        )
        if outcome.returncode == 0:
            return python
        tried = outcome.stderr.strip().rpartition("\n")[2]
    return f"user {user} may not make namespaces, or not read this checkout: {tried}"


def looks() -> tuple[str, list[str], list[str]]:
    """The machine's mounts and the folders that the demonstration uses."""
    return Path("/proc/self/mounts").read_text(), sorted(os.listdir("/run")), sorted(os.listdir("/var/log"))


@pytest.fixture
def machine() -> Iterator[None]:
    """The machine looks afterwards as it did before."""
    before = looks()
    yield
    assert looks() == before


@dataclass
class Whole:
    """Runs from beginning to end."""

    own: Future[Ended]
    picture: Path
    other_user: Future[Ended] | None
    why_no_other: str
    cut_off: Future[Ended] | None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """All at the same time: each takes half a minute, and none can see another."""
    folder = tmp_path_factory.mktemp("demo")
    others_folder = Path("/var/tmp") / f"nftban-{uuid.uuid4()}"
    before = looks()
    with ThreadPoolExecutor() as threads:
        picture = folder / "picture.svg"
        runs = [start(folder / "own", ["--record", str(picture)])]
        own = threads.submit(runs[0].ended)
        other_user = cut_off = None
        if isinstance(python := python_for(NOBODY), tuple):
            runs.append(start(others_folder, python=python, user=NOBODY))
            other_user = threads.submit(runs[1].ended)
        if os.geteuid() == 0:
            runs.append(cut := start(folder / "cut off"))
            cut_off = threads.submit(cut_off_the_clean_client, cut)
        yield Whole(own, picture, other_user, "" if other_user else str(python), cut_off)
    assert [list(run.scratch.iterdir()) for run in runs] == [[]] * len(runs)
    if other_user:
        others_folder.rmdir()
    assert looks() == before


def cut_off_the_clean_client(run: Run) -> Ended:
    """Its address gets no route in the mail server's network, as soon as there is one."""
    run.read_until("settings")
    daemon = next(p for p in run.processes() if b"nftban\0" in Path(f"/proc/{p}/cmdline").read_bytes())
    cut = ["ip", "route", "add", "blackhole", "198.51.100.25"]
    subprocess.run(["nsenter", f"--net=/proc/{daemon}/ns/net", *cut], check=True)
    return run.ended()


def check_story(ended: Ended) -> None:
    out = ended.out
    assert ended.status == 0, out + ended.err
    assert ended.err == ""
    assert "\x1b" not in out
    place = 0
    for pattern in ESSENTIAL:
        found = re.compile(pattern, re.MULTILINE).search(out, place)
        assert found, f"{pattern} is missing behind:\n{out[:place]}"
        place = found.end()
    for pattern in ANYWHERE:
        assert re.search(pattern, out), f"{pattern} is missing in:\n{out}"
    assert out.count("✔") == 5
    assert "✘" not in out
    assert "198.51.100.10: BANNED" not in out
    assert "198.51.100.99: BANNED" not in out
    assert ended.left_over == []


@pytest.mark.timeout(2 * LIMIT)
def test_tells_the_story_and_leaves_nothing(whole: Whole) -> None:
    check_story(whole.own.result())
    svg = whole.picture.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "BANNED&#160;30s" in svg


@pytest.mark.timeout(2 * LIMIT)
def test_does_the_same_for_an_ordinary_user(whole: Whole) -> None:
    if whole.other_user is None:
        pytest.skip(whole.why_no_other)
    check_story(whole.other_user.result())


@pytest.mark.timeout(2 * LIMIT)
def test_fails_where_a_clean_client_gets_no_answer(whole: Whole) -> None:
    if whole.cut_off is None:
        pytest.skip("only root may reach into the demonstration's network")
    ended = whole.cut_off.result()
    assert ended.status == 1
    assert ended.err == "the demonstration failed; not observed: a clean one is greeted meanwhile\n"
    assert "✔ a banned address is dropped" in ended.out
    assert "✘ a clean one is greeted meanwhile: 198.51.100.25: no answer" in ended.out


@pytest.mark.timeout(LIMIT)
def test_leaves_nothing_when_killed(tmp_path: Path, machine: None) -> None:
    run = start(tmp_path / "scratch")
    run.read_until("kernel    set ban4_mail has")
    assert len(run.processes()) == 3  # the parent, process 1 and the daemon
    run.process.send_signal(signal.SIGKILL)
    run.process.communicate()
    # Nothing tells us when the last process of a foreign PID namespace has gone.
    until = time.monotonic() + 10
    while run.processes() and time.monotonic() < until:
        time.sleep(0.05)
    assert run.processes() == []


@pytest.mark.timeout(LIMIT)
def test_ends_when_asked_to(tmp_path: Path, machine: None) -> None:
    run = start(tmp_path / "scratch")
    run.read_until("offence")
    run.process.send_signal(signal.SIGTERM)
    ended = run.ended()
    assert ended.status == 128 + signal.SIGTERM
    assert ended.err == ""
    assert ended.left_over == []


@pytest.mark.timeout(LIMIT)
def test_says_what_to_do_where_the_kernel_allows_nothing(tmp_path: Path, machine: None) -> None:
    """user.max_net_namespaces holds for the user namespace in which it is set (namespaces(7))."""
    forbid = 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$@"'
    ended = start(
        tmp_path / "scratch", prefix=["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    ).ended()
    assert ended.status == 77, ended.err
    assert ended.out == ""
    assert ended.err.startswith("this kernel allows no private network here (unshare: ")
    assert ended.err.count("\n") == 1
