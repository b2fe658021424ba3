#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Speed of turnkeyfs beside the plain directory, libfuse's passthrough_ll and
gocryptfs: the same work in turn, the median of several rounds, and ratios.

Needs root (it mounts, and drops caches), fio, git and, for the comparison,
gocryptfs and libfuse3-dev, for its row PostgreSQL. Absolute numbers depend on the
machine: use ratios. The whole table, into a document:

  nice -n -20 tests/bench/run.py --backing tmpfs,ext4 --out build-bench/results --document docs/performance.md
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import measuring  # noqa: E402
import metrics  # noqa: E402
import report  # noqa: E402
import systems  # noqa: E402
from inputs import Inputs  # noqa: E402
import workloads  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Context:
    """Where everything lies: the backing filesystem, our own files, what is built once."""

    def __init__(self, work, backing, cache, turnkeyfs):
        self.work, self.backing, self.cache, self.turnkeyfs = work, backing, cache, turnkeyfs


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def backing_filesystem(kind, work, image_dir):
    """A directory on a fresh tmpfs, on a fresh ext4 on a loop device, or in an existing directory."""
    place = os.path.join(work, 'backing')
    os.mkdir(place)
    if kind == 'tmpfs':
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=75%', 'turnkeyfs-bench', place], check=True)
        try:
            yield place
        finally:
            subprocess.run(['umount', place], check=False)
    elif kind == 'ext4':
        with tempfile.NamedTemporaryFile(prefix='turnkeyfs-bench-', suffix='.img', dir=image_dir) as image:
            image.truncate(8 << 30)
            subprocess.run(['mkfs.ext4', '-q', '-I', '256', image.name], check=True)
            device = subprocess.run(['losetup', '--find', '--show', '--direct-io=on', image.name], check=True,
                                    capture_output=True, text=True).stdout.strip()
            try:
                subprocess.run(['mount', device, place], check=True)
                try:
                    yield place
                finally:
                    subprocess.run(['umount', place], check=False)
            finally:
                subprocess.run(['losetup', '--detach', device], check=False)
    else:
        with tempfile.TemporaryDirectory(prefix='turnkeyfs-bench-', dir=kind) as folder:
            yield folder


def chosen_groups(only):
    """The groups that hold what --only names: groups or metrics."""
    if not only:
        return dict(workloads.GROUPS)
    groups = {}
    for name in only:
        holding = [group for group, (_, metrics) in workloads.GROUPS.items() if name == group or name in metrics]
        if not holding:
            raise SystemExit(f'run.py: no workload {name}. There are: ' + ', '.join(
                f'{group} ({", ".join(metrics)})' for group, (_, metrics) in workloads.GROUPS.items()))
        groups[holding[0]] = workloads.GROUPS[holding[0]]
    return groups


def chosen_systems(names, context):
    known = {system.name: system for system in systems.ALL}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f'run.py: no system {unknown[0]}. There are: {", ".join(known)}')
    usable = []
    for name in names:
        system = known[name](context)
        try:
            system.available()
            usable.append(system)
        except systems.Unavailable as reason:
            say(f'{name} left out: {reason}')
    return usable


def measure(system, group, inputs, check):
    work = workloads.GROUPS[group][0]
    try:
        system.create()
        systems.drop_caches()
        system.mount()
        found = work(system, inputs, check)
        peak = system.peak_rss_mib()
        if peak is not None:
            found['peak_rss'] = peak
            if system.most_inodes:
                found['peak_rss_beside_inodes'] = peak - 200 * system.most_inodes / (1 << 20)
        return found
    finally:
        system.destroy()


def add(samples, metric, system, number, value):
    """A value of a round into the samples."""
    values = samples.setdefault(metric, {}).setdefault(system, [])
    if metrics.METRICS[metric].whole and len(values) > number:
        values[number] = max(values[number], value)
    else:
        values.append(value)


def run(options, backing, context):
    """Returns samples, failures and the names of the systems."""
    inputs = Inputs(options.cache, options.scale)
    usable = chosen_systems(options.systems, context)
    samples, failures, left_out = {}, [], set()
    for number in range(options.rounds):
        for group in chosen_groups(options.only):
            # Another one begins in every round, so that none has always the quiet or the dirty start.
            start = number % len(usable) if usable else 0
            for system in usable[start:] + usable[:start]:
                if group in left_out or system.groups and group not in system.groups:
                    continue
                say(f'{backing}, round {number + 1}: {group}: {system.name}')
                try:
                    for metric, value in measure(system, group, inputs, check=number == 0).items():
                        add(samples, metric, system.name, number, value)
                except measuring.Unmeasured:
                    continue
                except systems.Unavailable as reason:
                    say(f'{group} left out: {reason}')
                    left_out.add(group)
                except (OSError, RuntimeError, subprocess.SubprocessError, measuring.Wrong) as error:
                    failures.append(f'{group} on {system.name} in round {number + 1}: {error}')
                    say('FAILED: ' + failures[-1])
    return samples, failures, [system.name for system in usable]


def run_on(options, backing):
    """One backing, from an empty directory to a result."""
    about = {'label': ', '.join(filter(None, (backing, options.label))), 'date': time.strftime('%Y-%m-%d'),
             'environment': report.environment(), 'backing': backing, 'rounds': options.rounds,
             'scale': options.scale}
    with tempfile.TemporaryDirectory(prefix='turnkeyfs-bench-', dir='/var/tmp') as work:
        with backing_filesystem(backing, work, options.image_dir) as place:
            context = Context(work, place, options.cache, options.turnkeyfs)
            samples, failures, names = run(options, backing, context)
    return report.result(about, names, samples, failures)


def words(text):
    return text.split(',')


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backing', type=words, default=['tmpfs'], help='with commas: tmpfs (default), '
                        'ext4 (an image of 8 GiB on a loop device), or an existing directory')
    parser.add_argument('--image-dir', default='/var/tmp', help='where the ext4 image lies (default: /var/tmp)')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--scale', type=float, default=1.0, help='1: full size (default), 0.05: a try')
    parser.add_argument('--quick', action='store_true', help='one round of scale 0.05')
    parser.add_argument('--only', type=words, help='groups or rows, with commas')
    parser.add_argument('--systems', type=words, default=[system.name for system in systems.ALL],
                        help='with commas (default: all)')
    parser.add_argument('--turnkeyfs', default=os.path.join(TOP, 'build-release', 'turnkeyfs'),
                        help='the program (default: build-release/turnkeyfs)')
    parser.add_argument('--cache', default=os.path.join(TOP, 'build-bench'),
                        help='what is made once: passthrough_ll, inputs (default: build-bench)')
    parser.add_argument('--label', default='', help='what is special about this run, for its heading')
    parser.add_argument('--out', metavar='DIR', help='write a JSON per backing there')
    parser.add_argument('--document', metavar='FILE', help='put the tables into it, as report.py does')
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.scale = 1, 0.05
    if options.rounds < 1 or options.scale <= 0:
        parser.error('--rounds and --scale are positive')
    return options


def main():
    options = arguments()
    chosen_groups(options.only)
    if os.geteuid():
        raise SystemExit('run.py: needs root: it mounts filesystems and drops caches')
    for tool in ('fio', 'git', 'tar'):
        if not shutil.which(tool):
            raise SystemExit(f'run.py: {tool} is missing; see tk_bench_packages in packaging/dependencies')
    os.makedirs(options.cache, exist_ok=True)
    results = []
    for backing in options.backing:
        results.append(run_on(options, backing))
        print(report.text(results[-1]) + '\n', flush=True)
        if options.out:
            os.makedirs(options.out, exist_ok=True)
            name = os.path.basename(backing.rstrip('/')) or 'root'
            report.write_json(os.path.join(options.out, name + '.json'), results[-1])
    if options.document:
        report.put_into(options.document, '\n\n'.join(report.text(found) for found in results))
    return 1 if any(found['failures'] or not found['metrics'] for found in results) else 0


if __name__ == '__main__':
    sys.exit(main())
