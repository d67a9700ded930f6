"""The demonstration as plain lines, one after the other, for a pipe, a log or a screen reader.

Takes a scene and what happens in it; prints `SECONDS  SUBJECT  TEXT`.  Guarantees: no control codes, nothing but lines.
"""

from __future__ import annotations

import time

from demo.ledger import News
from demo.scene import Knock, Logged, Scene


class Chronicle:
    """An audience that reads."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __enter__(self) -> Chronicle:
        return self

    def __exit__(self, *_: object) -> None:
        """Lines need no tidying up."""

    def step(self, text: str) -> None:
        self._say("start", text)

    def ready(self) -> None:
        for line in self._scene.settings.splitlines():
            self._say("settings", line)

    def happened(self, thing: Logged | Knock | News) -> None:
        if isinstance(thing, Logged):
            self._say("log", f"postfix/{thing.program}: {thing.message}")
        elif isinstance(thing, Knock):
            answer = "no answer, dropped" if thing.banner is None else thing.banner
            self._say("packet", f"{thing.client} to port {thing.port}: {answer}")
        else:
            self._say(thing.kind, thing.text)

    def frame(self) -> None:
        """Lines have no frames."""

    def curtain(self, command: str) -> None:
        self._say("end", command)

    def _say(self, subject: str, text: str) -> None:
        print(f"{time.time() - self._scene.started:5.1f} s  {subject:<8}  {text}", flush=True)
