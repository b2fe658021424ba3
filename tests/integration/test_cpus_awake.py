# SPDX-License-Identifier: Apache-2.0
"""[mount] keep_cpus_awake: who holds the kernel's interface, and when; unit/test_cpulatency.c has what is asked."""

import os
import pathlib
import struct

import pytest
from helpers import write_file
from mountpoint import run, turnkeyfs, wait_for

DEVICE = pathlib.Path("/dev/cpu_dma_latency")
DRIVER = pathlib.Path("/sys/devices/system/cpu/cpuidle/current_driver")
POLLING = pathlib.Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")

pytestmark = pytest.mark.skipif(not DEVICE.exists(), reason="no /dev/cpu_dma_latency")


def with_conf(value):
    return pytest.mark.conf({"mount": {"keep_cpus_awake": value}})


def has_it_open(pid):
    return str(DEVICE) in (os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def allowed_us():
    """What the kernel allows a CPU that wakes, by all that is asked of it now."""
    with open(DEVICE, "rb", buffering=0) as device:
        return struct.unpack("i", device.read(4))[0]


def assert_awake_when_busy(volume):
    assert volume.status()["daemon"]["keeps_cpus_awake"] is True
    assert "keeps CPUs awake while busy" in run(turnkeyfs(), "status", volume.mnt).stdout
    # The guardian outlives the daemon, and would keep what that has asked for.
    assert has_it_open(volume.pid) and not has_it_open(volume.guardian)

    def busy():
        for _ in range(200):
            write_file(volume.mnt / "f", b"x")
            os.unlink(volume.mnt / "f")
        return allowed_us() == 0

    wait_for(busy, what="awake CPUs")


def assert_left_alone(volume):
    assert volume.status()["daemon"]["keeps_cpus_awake"] is False
    assert "awake" not in run(turnkeyfs(), "status", volume.mnt).stdout
    assert not has_it_open(volume.pid)


@with_conf("yes")
def test_yes(volume):
    assert_awake_when_busy(volume)


@with_conf("no")
def test_no(volume):
    assert_left_alone(volume)


def test_auto_is_for_small_guests_without_halt_polling(volume):
    small_guest = (
        os.cpu_count() <= 8
        and DRIVER.exists()
        and DRIVER.read_text().strip() == "haltpoll"
        and POLLING.read_text().strip() == "0"
    )
    if small_guest:
        assert_awake_when_busy(volume)
    else:
        assert_left_alone(volume)


@with_conf("yes")
def test_only_root_can(mine):
    mine.expect_log("CPUs can't be kept awake")
    assert_left_alone(mine)
    assert "CPUs can't be kept awake: /dev/cpu_dma_latency: Permission denied" in mine.log()
