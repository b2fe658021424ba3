# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own judgement: what is reached, and what got slower."""

import json
import pathlib
import subprocess
import sys

import pytest
from mountpoint import turnkeyfs

BENCH = pathlib.Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import hotpaths  # noqa: E402
import report  # noqa: E402
from metrics import METRICS  # noqa: E402


def bench(program, *words):
    return subprocess.run(
        ["/usr/bin/python3", "-B", str(BENCH / program), *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )


@pytest.fixture
def compare(tmp_path):
    """Compare two results, given as {row: {system: values}}; returns the exit code and {row: verdict}."""

    def run(old, new, *words):
        paths = []
        for name, samples in (("old", old), ("new", new)):
            paths.append(tmp_path / f"{name}.json")
            report.write_json(paths[-1], report.result({}, ["turnkeyfs"], samples, []))
        done = bench("compare.py", *paths, *words)
        lines = [line.split() for line in done.stdout.splitlines()]
        return done.returncode, {words[1]: words[0] for words in lines if words[1] in METRICS}

    return run


def one(*values):
    return {"turnkeyfs": list(values)}


def test_compare_finds_what_got_slower_whichever_way_the_row_counts(compare):
    old = {"seqwrite": one(100, 102, 98), "untar": one(2, 2.02, 1.98)}
    new = {"seqwrite": one(80, 81, 79), "untar": one(2.5, 2.52, 2.48)}
    assert compare(old, new) == (1, {"seqwrite": "worse", "untar": "worse"})
    assert compare(new, old) == (0, {"seqwrite": "better", "untar": "better"})


def test_compare_takes_what_the_spread_explains_for_noise(compare):
    quiet, noisy = {"seqwrite": one(100, 101, 99)}, {"seqwrite": one(80, 101, 75)}
    assert compare(quiet, noisy) == (0, {"seqwrite": "same"})
    assert compare(noisy, quiet) == (0, {"seqwrite": "same"})


def test_compare_takes_less_than_the_floor_for_no_change(compare):
    old, new = {"seqwrite": one(100, 100, 100)}, {"seqwrite": one(97, 97, 97)}
    assert compare(old, new)[0] == 0
    assert compare(old, new, "--floor", 2) == (1, {"seqwrite": "worse"})


def test_compare_relative_to_another_system_leaves_the_machine_out(compare):
    old = {"seqwrite": {"turnkeyfs": [100, 101, 99], "ptll-wb": [200, 202, 198]}}
    half = {"seqwrite": {"turnkeyfs": [50, 51, 49], "ptll-wb": [100, 102, 98]}}
    slow = {"seqwrite": {"turnkeyfs": [50, 51, 49], "ptll-wb": [200, 202, 198]}}
    assert compare(old, half)[0] == 1
    assert compare(old, half, "--relative-to", "ptll-wb") == (0, {"seqwrite": "same"})
    assert compare(old, slow, "--relative-to", "ptll-wb") == (1, {"seqwrite": "worse"})


def test_compare_says_when_it_cannot_know(compare):
    single, several = {"seqwrite": one(100)}, {"seqwrite": one(50, 50, 50)}
    assert compare(single, several) == (2, {"seqwrite": "unknown"})
    assert compare({"untar": one(1, 1, 1)}, several) == (2, {})


def test_reached_needs_both_targets_and_the_limit():
    peers = {"gocryptfs": 100, "ptll": 200, "ptll-wb": 300}
    assert report.reached("seqwrite", {"turnkeyfs": 280, **peers})
    assert not report.reached("seqwrite", {"turnkeyfs": 260, **peers})  # 0.87 of the better passthrough
    assert not report.reached("seqwrite", {"turnkeyfs": 280, **peers, "gocryptfs": 130})
    assert report.reached("untar", {"turnkeyfs": 1, "gocryptfs": 2, "ptll": 1.1})
    assert not report.reached("untar", {"turnkeyfs": 1, "gocryptfs": 2, "ptll": 1.0})
    assert report.reached("inode_bytes", {"turnkeyfs": 200})
    assert not report.reached("inode_bytes", {"turnkeyfs": 201})
    assert report.reached("seqwrite", {"turnkeyfs": 280}) is None


def test_hotpaths_judges_what_is_above_its_bound_or_has_none():
    bounds = {"read": 1000, "write": 2000}
    assert hotpaths.judge({"read": 1100, "write": 100}, bounds, margin=10) == 0
    assert hotpaths.judge({"read": 1101, "write": 2000}, bounds, margin=10) == 1
    assert hotpaths.judge({"read": 1000, "other": 1}, bounds, margin=10) == 2


def test_hotpaths_counts_what_ran_in_the_program_itself(tmp_path):
    dump = tmp_path / "out.1"
    dump.write_text(
        "desc: Trigger: Client Request: read\nevents: Ir\n\n"
        "ob=(1) /b/tk_hotpaths\nfl=(1) a.c\nfn=(1) read\n10 7\n+1 30\n"
        "cob=(2) /lib/libcrypto.so.3\ncfn=(2) cipher\ncalls=1 0\n* 5000\n-1 3\n\n"
        "ob=(2)\nfn=(2)\n0 5000\n\n"
        "ob=(1)\nfn=(3) other\n20 2\n"
    )
    assert hotpaths.own_instructions(dump, "/elsewhere/tk_hotpaths") == 42


def test_a_run_measures_and_fills_a_document(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- table -->\nstale\n<!-- end of table -->\nafter\n")
    # Without daemons beside ours: which may not be installed.
    done = bench(
        "run.py", "--quick", "--rounds", 1, "--only", "appends,listing", "--systems", "plain,turnkeyfs",
        "--turnkeyfs", turnkeyfs(), "--cache", tmp_path, "--out", tmp_path, "--document", document,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "tmpfs.json").read_text())
    assert found["failures"] == []
    for row in ("append100_fsync", "listing_cold", "peak_rss"):
        assert found["metrics"][row]["median"]["turnkeyfs"] > 0
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert "append100_fsync [1/s]" in text
