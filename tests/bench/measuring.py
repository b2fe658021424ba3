# SPDX-License-Identifier: Apache-2.0
"""What the rows share."""

import time


class Wrong(Exception):
    """A system gave back other data than was written."""


class Unmeasured(Exception):
    """This row says nothing about this system."""


def timed(work, *arguments):
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin
