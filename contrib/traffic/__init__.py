"""Labelled traffic for a mail and SSH server, and a scoreboard over it: `make judge` (docs/judgement.md)."""
