#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
What got slower between two results of tests/bench/run.py, beyond the noise.

A row changed if the two medians are further apart than the values of either run
among themselves, and by at least --floor percent. With --relative-to, each value
is divided by that system's of the same round: so runs on machines of different
speed, or under different load, can be compared.

The exit code is 1 if a row got worse, 2 if nothing could be compared, otherwise 0.
"""

import argparse
import statistics
import sys

from metrics import METRICS
from report import read_json, spread

FEWEST = 3  # values, to know how much they vary


def values_of(result, metric, system, reference):
    """The values of one row by round, relative to the reference's if there is one."""
    samples = result['metrics'].get(metric, {}).get('samples', {})
    values = samples.get(system, [])
    if not reference:
        return values
    others = samples.get(reference, [])
    if len(values) != len(others):
        return []  # a round failed: which belong together is not known
    return [value / other for value, other in zip(values, others) if other]


def verdict(metric, old, new, floor):
    """('worse', 'better', 'same' or 'unknown', by how many percent the median changed, the noise in percent)."""
    if min(len(old), len(new)) < FEWEST or not statistics.median(old):
        return 'unknown', None, None
    before, after = statistics.median(old), statistics.median(new)
    change = 100 * (after - before) / before
    # Each spread is in percent of its own median; the change is in percent of the old one.
    noise = max(spread(old), spread(new) * after / before)
    if abs(change) <= max(noise, floor):
        return 'same', change, noise
    return 'better' if (change > 0) == (METRICS[metric].better == 'more') else 'worse', change, noise


def compare(old, new, system, reference, floor):
    """[(metric, verdict, change, noise)] of the rows that both results have."""
    found = []
    for metric in METRICS:
        before, after = (values_of(result, metric, system, reference) for result in (old, new))
        if before and after:
            found.append((metric, *verdict(metric, before, after, floor)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', metavar='OLD.json')
    parser.add_argument('new', metavar='NEW.json')
    parser.add_argument('--system', default='turnkeyfs')
    parser.add_argument('--relative-to', metavar='SYSTEM', help='such as ptll-wb or gocryptfs')
    parser.add_argument('--floor', type=float, default=5, metavar='PERCENT', help='less is never a change (default: 5)')
    options = parser.parse_args()
    found = compare(read_json(options.old), read_json(options.new), options.system, options.relative_to, options.floor)
    for metric, said, change, noise in found:
        print(f'{said:8} {metric:24} ' + (f'less than {FEWEST} rounds' if change is None else
                                          f'{change:+6.1f} %, noise {noise:.1f} %'))
    said = [row[1] for row in found]
    print(f'{said.count("worse")} worse, {said.count("better")} better, {said.count("same")} the same, '
          f'{said.count("unknown")} unknown')
    if said.count('unknown') == len(said):
        return 2
    return 1 if 'worse' in said else 0


if __name__ == '__main__':
    sys.exit(main())
