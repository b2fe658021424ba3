# SPDX-License-Identifier: Apache-2.0
"""What the journal costs others: privileges of its thread."""

import pathlib

import pytest

CAP_SYS_RESOURCE = 24


def capabilities(status):
    return int(status.read_text().split("CapEff:")[1].split()[0], 16)


@pytest.mark.skipif(
    not capabilities(pathlib.Path("/proc/self/status")) >> CAP_SYS_RESOURCE & 1,
    reason="no capability that could be kept",
)
def test_no_thread_keeps_a_capability_that_the_others_gave_up(volume):
    for task in pathlib.Path(f"/proc/{volume.pid}/task").iterdir():
        held = capabilities(task / "status")
        assert not held >> CAP_SYS_RESOURCE & 1, (task / "comm").read_text()
