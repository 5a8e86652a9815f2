"""Who is taken for alive: by the boot, by the name, and by the beats that were looked at."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from queuectl.job import utc_now
from queuectl.spool import presence
from tests.conftest import wait_until

if TYPE_CHECKING:
    from queuectl import Spool

LEASE = 3600


@pytest.mark.parametrize(
    ("host", "before_the_boot", "alive"),
    [
        ("here", True, False),  # it can only be this machine, before it was started anew
        ("here", False, True),  # two hosts with one name: somebody beats while this one runs
        ("elsewhere", True, True),  # a host that works on the directory by the network
        ("elsewhere", False, True),
    ],
)
def test_an_owner_of_another_boot_is_dead_at_once_only_where_it_was_this_machine(
    spool: Spool, host: str, before_the_boot: bool, alive: bool
) -> None:
    me = presence.join(spool.root, "test", utc_now())
    workers = spool.path / "workers"
    text = (workers / f"{me.name}.yaml").read_text()
    boot = presence.place_of(spool.root).split("/")[0]
    assert boot in text
    text = text.replace(boot, "0" * len(boot)).replace(me.name, "other-1-abcd")
    if host == "elsewhere":
        text = text.replace(f"host: {os.uname().nodename}", "host: elsewhere")
    other = workers / "other-1-abcd.yaml"
    other.write_text(text)
    if before_the_boot:
        then = psutil.boot_time() - 60
        os.utime(other, (then, then))
    assert presence.Onlooker(spool.root).is_alive("other-1-abcd", LEASE) is alive
    me.leave()


def test_time_in_which_nobody_looked_does_not_count(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "GAP", 0.1)
    me = presence.join(spool.root, "test", utc_now())
    text = (spool.path / f"workers/{me.name}.yaml").read_text()
    elsewhere = text.replace(presence.place_of(spool.root), "another").replace(me.name, "other-1-abcd")
    (spool.path / "workers/other-1-abcd.yaml").write_text(elsewhere)
    onlooker, lease = presence.Onlooker(spool.root), 0.4
    assert onlooker.is_alive("other-1-abcd", lease)
    time.sleep(2 * lease)  # the share was away from all, say
    assert onlooker.is_alive("other-1-abcd", lease)
    wait_until(lambda: not onlooker.is_alive("other-1-abcd", lease), "it is silent while it is looked at")
    me.leave()
