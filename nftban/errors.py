"""What can go wrong, by whose fault it is.

Takes nothing; gives exception classes that carry a sentence of what is wrong, where, and what to do, and the
exit code that the command line ends with (sysexits.h: 69 EX_UNAVAILABLE, 75 EX_TEMPFAIL, 77 EX_NOPERM,
78 EX_CONFIG).  Parsers do not raise these: they return fault values; whoever stands at the edge raises.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_OK = 0
EXIT_NO = 1
EXIT_USAGE = 2
EXIT_NO_DAEMON = 69
EXIT_TRY_AGAIN = 75
EXIT_NOT_PERMITTED = 77
EXIT_CONFIG = 78


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file the admin wrote.

    file: path as the admin knows it; line: 1-based, 0 where no line can be named; what: the fault in words;
    advice: what to write instead.
    """

    file: str
    line: int
    what: str
    advice: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.what}" + (f"\n    {self.advice}" if self.advice else "")


class NftbanError(Exception):
    """The base: `str(e)` is what is wrong, `advice` what to do, `exit_code` how the command line ends."""

    exit_code = 1

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice


class UsageError(NftbanError):
    """The caller asked for something that makes no sense (not an address, a negative duration)."""

    exit_code = EXIT_USAGE


class ConfigError(NftbanError):
    """The settings or a data file cannot be used; `faults` lists every fault found, not only the first."""

    exit_code = EXIT_CONFIG

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        count = f"{len(faults)} fault" + ("s" if len(faults) != 1 else "")
        super().__init__(f"{count} in the configuration:\n" + "\n".join(map(str, faults)))
        self.faults = faults


class NoDaemonError(NftbanError):
    """The daemon does not answer on its socket."""

    exit_code = EXIT_NO_DAEMON


class TryAgainError(NftbanError):
    """A temporary state of the machine (busy, full, over quota)."""

    exit_code = EXIT_TRY_AGAIN


class StoreError(TryAgainError):
    """The store could not be written or read (disk full, damaged)."""


class PermissionNeededError(NftbanError):
    """The kernel or the socket refused us: CAP_NET_ADMIN or group membership is missing."""

    exit_code = EXIT_NOT_PERMITTED


class KernelError(NftbanError):
    """The kernel refused a netlink transaction; `errno` is its code."""

    exit_code = EXIT_TRY_AGAIN

    def __init__(self, errno: int, what: str, advice: str = "") -> None:
        super().__init__(what, advice)
        self.errno = errno


class RefusedError(NftbanError):
    """A ban that must not be: it would cover a protected address (own, gateway, allow list, live SSH session)."""

    exit_code = EXIT_NO
