#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Instructions of the operations that applications wait for, counted by callgrind,
against bounds: these don't depend on the machine's load, so they show in CI what
times can't.

Counted is the library's own code. What it calls in OpenSSL and libc depends on the
processor, and the kernel's share is not visible here. The exit code is 1 if an
operation takes more than its bound and --margin percent.
"""

import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(FOLDER))
BOUNDS = os.path.join(FOLDER, 'hotpaths.json')
MARGIN = 10
# Compilers differ more than changes that nobody would notice.
OTHER_COMPILER_MARGIN = 40


def own_instructions(path, program):
    """Those of one callgrind dump that ran in `program` itself."""
    names, total, inside, skip = {}, 0, False, False
    with open(path, encoding='utf-8') as dump:
        for line in dump:
            chosen = re.match(r'ob=(\(\d+\))(?: (.*))?$', line)
            if re.match(r'c?ob=\(\d+\) ', line):
                number, name = re.match(r'c?ob=(\(\d+\)) (.*)$', line).groups()
                names[number] = name
            if chosen:
                inside = os.path.basename(names.get(chosen.group(1), '')) == os.path.basename(program)
            elif line.startswith('calls='):
                skip = True  # the next line is what the callee took
            elif re.match(r'[0-9+*-]', line):
                if inside and not skip:
                    total += int(line.split()[1])
                skip = False
    return total


def count(program):
    """{operation: instructions} of its last call."""
    found = {}
    with tempfile.TemporaryDirectory(prefix='turnkeyfs-hotpaths-') as folder:
        done = subprocess.run(
            ['valgrind', '--tool=callgrind', '--callgrind-out-file=' + os.path.join(folder, 'out'), program],
            env={**os.environ, 'TMPDIR': folder}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f'hotpaths.py: {program} under valgrind: {done.stderr[-2000:]}')
        for path in sorted(glob.glob(os.path.join(folder, 'out.*')), key=lambda path: int(path.rsplit('.', 1)[1])):
            with open(path, encoding='utf-8') as dump:
                trigger = re.search(r'^desc: Trigger: Client Request: (\w+)', dump.read(), re.MULTILINE)
            if trigger:
                found[trigger.group(1)] = own_instructions(path, program)
    if not found:
        raise SystemExit(f'hotpaths.py: callgrind counted nothing in {program}')
    return found


def compiler():
    """What decides how many instructions the same source takes."""
    machine = subprocess.run(['gcc', '-dumpmachine'], check=True, capture_output=True, text=True).stdout.strip()
    version = subprocess.run(['gcc', '-dumpversion'], check=True, capture_output=True, text=True).stdout.strip()
    return f'{machine} gcc {version.split(".")[0]}'


def judge(found, bounds, margin):
    """Print each operation; returns how many are above their bounds, or have none."""
    bad = 0
    for name in sorted(found.keys() | bounds.keys()):
        if name not in found or name not in bounds:
            print(f'{name:20} {"no longer counted" if name in bounds else "without a bound"}: --update')
            bad += 1
            continue
        change = 100 * found[name] / bounds[name] - 100
        above = change > margin
        print(f'{name:20} {found[name]:10,} instructions, bound {bounds[name]:10,}: {change:+.1f} %'
              f'{" ABOVE" if above else ""}')
        bad += above
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--program', default=os.path.join(TOP, 'build-release/tests/bench/tk_hotpaths'))
    parser.add_argument('--margin', type=float, metavar='PERCENT',
                        help=f'default: {MARGIN}, or {OTHER_COMPILER_MARGIN} with another compiler than the bounds')
    parser.add_argument('--update', action='store_true', help='make what is counted now the bounds')
    options = parser.parse_args()
    found = count(options.program)
    if options.update:
        with open(BOUNDS, 'w', encoding='utf-8') as out:
            json.dump({'compiler': compiler(), 'instructions': found}, out, indent=1, sort_keys=True)
            out.write('\n')
    with open(BOUNDS, encoding='utf-8') as text:
        stored = json.load(text)
    margin = options.margin
    if margin is None:
        margin = MARGIN if compiler() == stored['compiler'] else OTHER_COMPILER_MARGIN
    bad = judge(found, stored['instructions'], margin)
    print(f'{len(found) - bad} within {margin:g} % of their bounds, {bad} not')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
