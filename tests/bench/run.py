#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Speed of turnkeyfs beside the plain directory, libfuse's passthrough_ll and
gocryptfs: the same work in turn, the median of several rounds, and ratios.

Needs root (it mounts, and drops caches), fio, git and, for the comparison,
gocryptfs and libfuse3-dev. Absolute numbers depend on the machine: use ratios.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import report  # noqa: E402
import systems  # noqa: E402
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
        return work(system, inputs, check)
    finally:
        system.destroy()


def run(options, context):
    """Returns samples and failures."""
    inputs = workloads.Inputs(options.cache, options.scale)
    usable = chosen_systems(options.systems, context)
    samples, failures = {}, []
    for number in range(options.rounds):
        for group in chosen_groups(options.only):
            # Another one begins in every round, so that none has always the quiet or the dirty start.
            start = number % len(usable) if usable else 0
            for system in usable[start:] + usable[:start]:
                say(f'round {number + 1}: {group}: {system.name}')
                try:
                    for metric, value in measure(system, group, inputs, check=number == 0).items():
                        samples.setdefault(metric, {}).setdefault(system.name, []).append(value)
                except (OSError, RuntimeError, subprocess.SubprocessError, workloads.Wrong) as error:
                    failures.append(f'{group} on {system.name} in round {number + 1}: {error}')
                    say('FAILED: ' + failures[-1])
    return samples, failures, [system.name for system in usable]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backing', default='tmpfs',
                        help='tmpfs, ext4 (an image of 8 GiB on a loop device), or an existing directory')
    parser.add_argument('--image-dir', default='/var/tmp', help='where the ext4 image lies (default: /var/tmp)')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--scale', type=float, default=1.0, help='1: full size (default), 0.05: a try')
    parser.add_argument('--only', type=lambda text: text.split(','), help='groups or metrics, with commas')
    parser.add_argument('--systems', type=lambda text: text.split(','),
                        default=[system.name for system in systems.ALL], help='with commas (default: all)')
    parser.add_argument('--turnkeyfs', default=os.path.join(TOP, 'build-release', 'turnkeyfs'),
                        help='the program (default: build-release/turnkeyfs)')
    parser.add_argument('--cache', default=os.path.join(TOP, 'build-bench'),
                        help='what is made once: passthrough_ll, inputs (default: build-bench)')
    parser.add_argument('--json', metavar='FILE', help='write everything there as well')
    options = parser.parse_args()
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
    about = {'environment': report.environment(), 'backing': options.backing, 'rounds': options.rounds,
             'scale': options.scale}

    with tempfile.TemporaryDirectory(prefix='turnkeyfs-bench-', dir='/var/tmp') as work:
        with backing_filesystem(options.backing, work, options.image_dir) as backing:
            context = Context(work, backing, options.cache, options.turnkeyfs)
            samples, failures, names = run(options, context)

    machine = about['environment']
    print(f'{options.backing} backing, {options.rounds} rounds, scale {options.scale:g}; {machine["cpus"]} CPUs '
          f'({machine["cpu"]}), Linux {machine["kernel"]}, load {machine["load_at_start"]:.1f} at the start\n')
    print(report.table(samples, names))
    for failure in failures:
        print(f'\nFAILED: {failure}')
    if options.json:
        report.write_json(options.json, about, samples, failures)
    return 1 if failures or not samples else 0


if __name__ == '__main__':
    sys.exit(main())
