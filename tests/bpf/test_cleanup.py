"""After cleanup() the machine is as it was: also after a kill, and with filters and tables of others in place."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import attach, host, loader
from bpf.attach import Hook
from bpf.datapath import Datapath, DatapathError, Options, cleanup
from bpf.layout import MAPS
from bpf.links import Changes
from tests.bpf.galaxy import Galaxy, inside
from tests.bpf.stage import Stage, tcp_ports

pytestmark = pytest.mark.privileged
SYSCTLS = (
    "net.ipv4.tcp_early_demux",
    "net.ipv4.udp_early_demux",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.uplink.rp_filter",
)


@pytest.fixture
def options(tmp_path: Path, cache: Path) -> Options:
    return Options(tmp_path / "bpffs", tmp_path / "run", cache)


@pytest.fixture
def galaxy(request: pytest.FixtureRequest, options: Options) -> Iterator[Galaxy]:
    made = Galaxy(f"bpf{os.getpid() % 10_000}{abs(hash(request.node.name)) % 10_000}")
    made.on_node("sysctl", "-qw", "net.ipv4.conf.uplink.rp_filter=0")
    yield made
    with inside(made.node):
        cleanup(options)  # where the test failed before it did
    made.close()


def settled(galaxy: Galaxy) -> dict[str, str]:
    """The picture once the kernel has done with its own link-local addresses (duplicate detection takes a second)."""
    end = time.monotonic() + 10
    while "tentative" in galaxy.on_node("ip", "-6", "addr"):
        assert time.monotonic() < end, "addresses stay tentative"
        time.sleep(0.05)
    return picture(galaxy)


def picture(galaxy: Galaxy) -> dict[str, str]:
    """Everything that cleanup promises to leave as it was."""
    words = {
        "links": "ip -br link",
        "rules": "ip rule",
        "rules6": "ip -6 rule",
        "routes": "ip route show table all",
        "routes6": "ip -6 route show table all",
        "tables": "nft list ruleset",
        "filters": "tc filter show dev pod2 ingress",
        "filters out": "tc filter show dev pod2 egress",
        "qdiscs": "tc qdisc show",
    }
    out = {name: galaxy.on_node(*command.split()) for name, command in words.items()}
    out["sysctls"] = galaxy.on_node("sysctl", *SYSCTLS)
    return out


def our_maps() -> set[str]:
    return {spec.name for spec in MAPS}


def start(galaxy: Galaxy, options: Options) -> Stage:
    stage = Stage(galaxy, Datapath(options))
    stage.open()
    stage.pod("client")
    with stage.on_node():
        stage.datapath.set_proxy_ports(tcp_ports(15001))
    return stage


def test_nothing_is_left(galaxy: Galaxy, options: Options) -> None:
    galaxy.pod("first")
    before = settled(galaxy)
    stage = Stage(galaxy, Datapath(options))
    stage.open()
    stage.apply()
    with stage.on_node():
        stage.datapath.attach(galaxy.pods["first"].ifindex)
        stage.datapath.set_proxy_ports(tcp_ports(15001, 15002))
    during = picture(galaxy)
    assert all(
        during[part] != before[part] for part in ("links", "rules", "rules6", "routes", "tables", "filters", "sysctls")
    )
    with stage.on_node():
        stage.datapath.cleanup()
    assert picture(galaxy) == before
    assert not loader.is_bpffs(options.bpffs)
    assert list(options.run_dir.iterdir()) == []


def test_nothing_is_left_of_an_agent_that_was_killed(galaxy: Galaxy, options: Options) -> None:
    """Its process is gone, and whoever cleans up has nothing but the paths."""
    galaxy.pod("first")
    before = settled(galaxy)
    stage = Stage(galaxy, Datapath(options))
    stage.open()
    with stage.on_node():
        stage.datapath.attach(galaxy.pods["first"].ifindex)
    stage.datapath.close()
    with inside(galaxy.node):
        cleanup(options)
        assert picture(galaxy) == before
        cleanup(options)  # and again
    assert picture(galaxy) == before


def test_opening_twice_records_the_first_values(galaxy: Galaxy, options: Options) -> None:
    galaxy.pod("first")
    before = settled(galaxy)
    for _ in range(2):
        stage = Stage(galaxy, Datapath(options))
        stage.open()
        stage.datapath.close()
    with inside(galaxy.node):
        cleanup(options)
    assert picture(galaxy) == before


def test_a_strict_reverse_path_filter_moves_to_the_other_devices(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    assert galaxy.on_node("sysctl", "-n", *SYSCTLS).split() == ["0", "0", "0", "1"]
    with stage.on_node():
        stage.datapath.cleanup()
    assert galaxy.on_node("sysctl", "-n", *SYSCTLS).split() == ["1", "1", "1", "0"]


def test_filters_of_others_stay(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    device = "pod2"
    pinned = str(options.pins / "to_proxy")
    galaxy.on_node("tc", "filter", "add", "dev", device, "ingress", "prio", "50", "bpf", "da", "object-pinned", pinned)
    index = galaxy.pods["client"].ifindex
    with stage.on_node():
        assert stage.datapath.attached() == [index]
        stage.datapath.detach(index)
        assert stage.datapath.attached() == []
        stage.datapath.cleanup()
    assert "pref 50 bpf" in galaxy.on_node("tc", "filter", "show", "dev", device, "ingress")


def test_attaching_twice_leaves_one_filter(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    index = galaxy.pods["client"].ifindex
    with stage.on_node():
        attach.detach(index)
        for _ in range(2):
            stage.datapath.attach(index)
        assert [len(attach.filters(index, hook)) for hook in Hook] == [1, 1]
        stage.datapath.cleanup()


def test_a_device_that_is_gone_is_no_error(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    galaxy.on_node("ip", "link", "del", "pod2")
    with stage.on_node():
        stage.datapath.detach(galaxy.pods["client"].ifindex)
        with pytest.raises(OSError, match=r"add clsact to interface \d+: No such device"):
            stage.datapath.attach(galaxy.pods["client"].ifindex)
        stage.datapath.cleanup()


def test_a_device_of_somebody_else_with_our_name_is_left_alone(galaxy: Galaxy, options: Options) -> None:
    galaxy.on_node("ip", "link", "add", "deflector0", "type", "bridge")
    datapath = Datapath(options)
    with inside(galaxy.node):
        with pytest.raises(DatapathError, match="deflector0 is a bridge of somebody else"):
            datapath.open()
        datapath.cleanup()
    assert "deflector0" in galaxy.on_node("ip", "-br", "link")


def test_the_kernel_lets_go_of_maps_and_programs(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    ids = {p.id for p in (loader.sys.program_info(fd) for fd in stage.datapath._programs.values())}
    with stage.on_node():
        stage.datapath.cleanup()

    def gone() -> bool:
        for number in ids:
            try:
                os.close(loader.sys.program_fd_by_id(number))
            except FileNotFoundError:
                continue
            return False
        return True

    stage.wait(gone, "the end of the programs")


def test_an_occupied_bpffs_stays_mounted(galaxy: Galaxy, options: Options) -> None:
    stage = start(galaxy, options)
    (options.bpffs / "somebody").mkdir()
    with stage.on_node():
        stage.datapath.cleanup()
    assert loader.is_bpffs(options.bpffs)
    (options.bpffs / "somebody").rmdir()
    subprocess.run(["umount", str(options.bpffs)], check=True)


def test_refused_sysctls_and_missing_nft_are_said_in_one_line(
    galaxy: Galaxy, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with inside(galaxy.node), pytest.raises(DatapathError, match="nft is missing: apt install nftables"):
        Datapath(options).open()
    monkeypatch.undo()
    with inside(galaxy.node):
        cleanup(options)
    assert host.DEVICE not in galaxy.on_node("ip", "-br", "link")


def test_what_somebody_removed_is_put_back(galaxy: Galaxy, options: Options) -> None:
    """`nft flush ruleset`, `tc qdisc del` and the like: without its filters a pod would be open."""
    stage = start(galaxy, options)
    client = galaxy.pods["client"]
    galaxy.pod("other")
    whole = settled(galaxy)
    galaxy.on_node("tc", "qdisc", "del", "dev", "pod2", "clsact")
    galaxy.on_node("nft", "flush", "ruleset")
    for family in ("-4", "-6"):
        galaxy.on_node("ip", family, "rule", "del", "pref", str(host.RULE_PRIORITY))
        galaxy.on_node("ip", family, "route", "flush", "table", str(host.ROUTE_TABLE))
    galaxy.on_node("ip", "link", "del", host.DEVICE)
    with stage.on_node():
        assert stage.datapath.repair([client.ifindex, 9999]) == {client.ifindex}
        stage.datapath.set_proxy_ports(tcp_ports(15001))
    mended = settled(galaxy)
    assert host.DEVICE in mended.pop("links")  # with another address
    assert {what: sorted(lines.split("\n")) for what, lines in mended.items()} == {
        what: sorted(whole[what].split("\n")) for what in mended
    }


def test_a_repair_without_damage_tells_nobody(galaxy: Galaxy, options: Options) -> None:
    """Else the agent, which looks whenever something changes, would look for ever."""
    stage = start(galaxy, options)
    settled(galaxy)
    with stage.on_node():
        changes = Changes()
        stage.datapath.repair([galaxy.pods["client"].ifindex])
        assert not changes.drain()
        galaxy.on_node("tc", "qdisc", "del", "dev", "pod2", "clsact")
        assert changes.drain()
        changes.close()
