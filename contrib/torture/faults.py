"""What is done to the daemon, by name: each takes the World, does its worst while lines are written, and returns with
the daemon running."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from torture.model import JAILS
from torture.world import World

Fault = Callable[[World], None]


def nothing(world: World) -> None:
    world.burst(30)


def kill(world: World) -> None:
    """At any instant: while it reads, counts, bans, saves."""
    world.burst(world.rng.randint(1, 25))
    threading.Event().wait(world.rng.random() * world.rng.choice((0.005, 0.05, 1.2)))
    world.kill()
    world.burst(world.rng.randint(0, 15))
    world.start()


def kill_twice(world: World) -> None:
    world.burst(10)
    world.kill()
    world.start()
    world.burst(world.rng.randint(1, 10))
    threading.Event().wait(world.rng.random() * 0.05)
    world.kill()
    world.start()


def restart(world: World) -> None:
    world.burst(10)
    world.kill(signal.SIGTERM)
    world.burst(world.rng.randint(0, 10))
    world.start()


def reload(world: World) -> None:
    assert world.process is not None
    world.burst(10)
    world.process.send_signal(signal.SIGHUP)
    world.burst(10)
    world.eventually(lambda: "settings read anew" in world.daemon_log(), "the settings are read anew")


def rotate(world: World) -> None:
    for jail in JAILS:
        world.burst(8)
        world.rotate(jail, compress=False)
        world.burst(8)


def rotate_while_down(world: World) -> None:
    world.burst(8)
    world.kill(world.rng.choice((signal.SIGKILL, signal.SIGTERM)))
    world.burst(8)
    for jail in JAILS:
        world.rotate(jail, compress=False)
    world.burst(8)
    world.start()


def compress(world: World) -> None:
    """The old log is gone while its last lines may not have been read."""
    jail = world.rng.choice(JAILS)
    world.burst(8)
    world.rotate(jail, compress=True)
    world.burst(8)


def copytruncate(world: World) -> None:
    """What was not read by then is lost with the file, whoever reads it; so it is read."""
    world.burst(8)
    world.check()
    world.copytruncate(world.rng.choice(JAILS))
    world.burst(8)


def flush_ruleset(world: World) -> None:
    world.burst(8)
    world.nft("flush ruleset\n")
    world.burst(8)


def flush_set(world: World) -> None:
    world.burst(8)
    world.nft("flush set inet nftban ban4_all\n")
    world.burst(8)


def delete_elements(world: World) -> None:
    gone = world.rng.sample(sorted(world.model.banned), min(3, len(world.model.banned)))
    commands = [f"delete element inet nftban ban4_all {{ {address} }}\n" for address in gone]
    commands.append(f"add element inet nftban ban4_all {{ {world.address()} timeout 1h }}\n")
    world.nft("".join(commands))
    world.burst(8)


def deafen(world: World) -> None:
    """The kernel has more to tell than the socket takes (ENOBUFS), while the daemon does not listen."""
    assert world.process is not None
    world.burst(5)
    world.nft("# nothing\n")
    world.process.send_signal(signal.SIGSTOP)
    many = ", ".join(f"12.{n >> 8}.{n & 255}.1 timeout 1h" for n in range(6000))
    world.nft(f"add element inet nftban ban4_all {{ {many} }}\nflush set inet nftban ban4_all\n", calm=False)
    world.process.send_signal(signal.SIGCONT)
    world.burst(8)


def lose_resolver(world: World) -> None:
    world.lose_dns()
    world.burst(20)
    if world.rng.random() < 0.5:
        world.kill()
        world.start()
    world.check()
    world.find_dns()


def fill_disk(world: World) -> None:
    world.burst(5)
    world.fill_disk()
    world.burst(20)
    world.check()
    world.make_room()
    world.burst(5)


def put_clock(world: World) -> None:
    """Forward and back, by seconds and by hours, also while it does not run."""
    world.burst(8)
    world.check()
    seconds = world.rng.choice((-7200, -3700, -40, 40, 700, 3700, 90_000)) * (0.5 + world.rng.random())
    if world.rng.random() < 0.3:
        world.kill()
        world.put_clock(seconds)
        world.start()
    else:
        world.put_clock(seconds)
    world.burst(8)


def unban(world: World) -> None:
    world.burst(8)
    world.check()
    for address in world.rng.sample(sorted(world.model.banned), min(3, len(world.model.banned))):
        world.ask("unban", prefixes=[address])
        world.model.unban(address)
    if world.rng.random() < 0.5:
        world.kill()
        world.start()
    world.burst(8)


def damage_store(world: World) -> None:
    world.burst(8)
    world.check()
    world.kill(world.rng.choice((signal.SIGKILL, signal.SIGTERM)))
    world.damage_store()
    world.start()
    world.ask("status")
    world.eventually(lambda: not [d for d in world.differences() if "bans" in d], "all bans stand")
    world.eventually(lambda: world.answers("why", address="11.0.0.1"), "the store is sound again")
    world.adopt_counts()
    world.burst(8)


FAULTS: dict[str, Fault] = {
    f.__name__: f
    for f in (
        nothing, kill, kill_twice, restart, reload, rotate, rotate_while_down, compress, copytruncate, flush_ruleset,
        flush_set, delete_elements, deafen, lose_resolver, fill_disk, put_clock, unban, damage_store,
    )
}  # fmt: skip
