"""Numbers and IPv4 addresses at many places of a text at once.

Takes a block of whole lines and places in it (numpy arrays of offsets); gives values and the places behind them, for
each place at the same time: the columns of a list are walked down line by line in step.
Guarantees: the strict notation of inet_pton: no leading zeros, four octets up to 255; a place where it is not so is
marked, not guessed.  Does not: IPv6, odd lines; their formats read those one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]
Values = NDArray[np.int64]
Marks = NDArray[np.bool_]
Octets = NDArray[np.uint8]

# What may be read behind the last line without looking.
_PAD = b"\n" * 64
NEWLINE, RETURN, SPACE, TAB = 10, 13, 32, 9


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines: their text, its bytes as numbers, where each line begins and where its newline is."""

    text: bytes
    octets: Octets
    starts: Places
    ends: Places

    @classmethod
    def of(cls, text: bytes) -> Block:
        """text ends in a newline."""
        octets = np.frombuffer(text + _PAD, np.uint8)
        ends = np.flatnonzero(octets[: len(text)] == NEWLINE)
        starts = np.concatenate((np.zeros(1, np.intp), ends[:-1] + 1))
        return cls(text, octets, starts, ends)

    def line(self, index: int) -> bytes:
        return self.text[self.starts[index] : self.ends[index]]

    def number(self, at: Places, digits: int) -> tuple[Values, Places]:
        """Decimal number and how many digits it has at each place; 0 digits where there is none, where it has more
        than `digits`, or a leading zero."""
        value = np.zeros(len(at), np.int64)
        length = np.zeros(len(at), np.intp)
        going = np.ones(len(at), np.bool_)
        for i in range(digits):
            digit = self.octets[at + i] - np.uint8(48)
            going &= digit < 10
            value = np.where(going, value * 10 + digit, value)
            length += going
        more = going & (self.octets[at + digits] - np.uint8(48) < 10)
        length[more | ((length > 1) & (self.octets[at] == 48))] = 0
        return value, length

    def quad(self, at: Places) -> tuple[Values, Places, Marks]:
        """IPv4 address, the place behind it, and whether there is one."""
        value = np.zeros(len(at), np.int64)
        good = np.ones(len(at), np.bool_)
        for octet in range(4):
            part, length = self.number(at, 3)
            good &= (length > 0) & (part < 256)
            value = value << 8 | part
            at = at + length
            if octet < 3:
                good &= self.octets[at] == ord(".")
                at = at + 1
        return value, at, good

    def prefix(self, at: Places) -> tuple[Values, Values, Places, Marks]:
        """IPv4 address with or without /LENGTH: first address as written, length, the place behind, whether good."""
        value, at, good = self.quad(at)
        slash = self.octets[at] == ord("/")
        length, digits = self.number(at + slash, 2)
        good &= ~slash | ((digits > 0) & (length <= 32))
        return value, np.where(slash, length, 32), at + np.where(slash, digits + 1, 0), good

    def ends_at(self, at: Places) -> Marks:
        """Is the line over there?"""
        here = self.octets[at]
        ended: Marks = (here == NEWLINE) | ((here == RETURN) & (self.octets[at + 1] == NEWLINE))
        return ended

    def behind_blanks(self, at: Places, most: int = 8) -> Places:
        """The places behind up to `most` spaces and tabs."""
        for _ in range(most):
            here = self.octets[at]
            blank = (here == SPACE) | (here == TAB)
            if not blank.any():
                break
            at = at + blank
        return at
