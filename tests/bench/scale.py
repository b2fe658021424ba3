#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
How throughput and latency go with the number of files, the size of a file, open
files and threads: one JSON, and a plot (SVG) for each.

Needs root (it mounts, and drops caches). A knee is a point at which a line gets
worse by more than --knee times from one size to the next; it is printed.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import plot  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import systems  # noqa: E402

BLOCK = 4096
SAMPLES = 2000  # single operations, for the latency
PER_DIRECTORY = 1000  # of the tree
SECONDS = 2  # for each number of threads


def say(text):
    print(text, file=sys.stderr, flush=True)


def rate(count, work):
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def microseconds(operations):
    """The median of how long each takes."""
    times = []
    for operation in operations:
        begin = time.perf_counter()
        operation()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def create(path, content=b''):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    if content:
        os.write(fd, content)
    os.close(fd)


# Each of these yields {line: value} for each of its sizes; all in one mount.

def files(system, counts, per_directory):
    """Empty files in one directory, or in a tree: making them, then all of them cold."""
    top = os.path.join(system.root, 'files')
    os.mkdir(top)

    def path(i):
        folder = os.path.join(top, f'd{i // per_directory}') if per_directory else top
        return os.path.join(folder, f'file{i}')

    made = 0
    for count in counts:
        def more():
            for i in range(made, count):
                if per_directory and i % per_directory == 0:
                    os.mkdir(os.path.dirname(path(i)))
                create(path(i))

        created = rate(count - made, more)
        made = count
        system.cold()
        chosen = random.Random(count).sample(range(count), min(count, SAMPLES))
        lookup = microseconds(lambda i=i: os.stat(path(i)) for i in chosen)
        system.cold()
        walked = rate(count, lambda: sum(len(names) for _, _, names in os.walk(top)))
        yield count, {'create [1/s]': created, 'list, cold [names/s]': walked, 'stat at random, cold [us]': lookup}


def file_size(system, sizes):
    """One sparse file: a block in its middle, and its attributes."""
    path = os.path.join(system.root, 'sparse')
    create(path)
    for size in sizes:
        os.truncate(path, 0)
        os.truncate(path, size)
        where = size // 2 // BLOCK * BLOCK
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, bytes([1]) * min(size, BLOCK), where)
        os.fsync(fd)
        overwrite = microseconds(_overwrites(fd, where, min(size, BLOCK)))
        os.close(fd)
        opened = []
        for _ in range(3):
            system.cold()
            opened.append(microseconds([lambda: _open_and_read(path, where)]))
        truncate = microseconds([lambda: os.truncate(path, size - 1), lambda: os.truncate(path, size)])
        yield size, {'overwrite and fdatasync [us]': overwrite, 'open and read, cold [us]': statistics.median(opened),
                     'truncate [us]': truncate}


def _open_and_read(path, where):
    fd = os.open(path, os.O_RDONLY)
    os.pread(fd, BLOCK, where)
    os.close(fd)


def _overwrites(fd, where, length):
    def one():
        os.pwrite(fd, os.urandom(length), where)
        os.fdatasync(fd)
    return [one] * 50


def open_files(system, counts):
    """Files held open: opening one more, and reading a block of one of them."""
    paths = [os.path.join(system.root, f'file{i}') for i in range(max(counts))]
    for path in paths:
        create(path, b'x' * BLOCK)
    system.cold()
    held = []
    try:
        for count in counts:
            opened = microseconds(lambda path=path: held.append(os.open(path, os.O_RDONLY))
                                  for path in paths[len(held):count])
            # The kernel's cache answers the second read of a block: only what was not read counts.
            some = held[-min(500, len(held)):]
            for fd in some:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            yield count, {'open [us]': opened, 'read a block [us]': microseconds(
                lambda fd=fd: os.pread(fd, BLOCK, 0) for fd in some)}
    finally:
        for fd in held:
            os.close(fd)


def threads(system, counts):
    """Reads past the kernel's cache, and synced writes, by fio's threads in a file each; files made by processes."""
    for count in counts:
        values = {}
        for line, options in (('random read, O_DIRECT [1/s]', ('--rw=randread', '--direct=1')),
                              ('random write, fdatasync each [1/s]', ('--rw=randwrite', '--fdatasync=1'))):
            done = subprocess.run(
                ['fio', '--output-format=json', '--name=scale', f'--directory={system.root}', '--ioengine=psync',
                 '--thread', '--group_reporting', f'--numjobs={count}', '--size=4M', '--bs=4k', '--fallocate=none',
                 '--time_based', f'--runtime={SECONDS}', *options],
                check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
            values[line] = job['read']['iops'] + job['write']['iops']
        values['create [1/s]'] = created_by(system, count)
        yield count, values


def created_by(system, count):
    """Files per second, made by so many processes in a directory each."""
    each = max(4000 // count, 50)

    def work():
        children = []
        for writer in range(count):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    folder = os.path.join(system.root, f'by{count}-{writer}')
                    os.mkdir(folder)
                    for i in range(each):
                        create(os.path.join(folder, str(i)))
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        if any(os.waitpid(pid, 0)[1] for pid in children):
            raise OSError('a process failed')

    return rate(count * each, work)


def decades(first, last):
    """1, 10, 100 ... from `first` to `last`."""
    sizes = [first]
    while sizes[-1] * 10 <= last:
        sizes.append(sizes[-1] * 10)
    return sizes


def most_open_files(wanted):
    """As many, or what the hard limit leaves. Each is a descriptor here and one in the daemon."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = max(hard, wanted + 1000)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    except ValueError:
        limit = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return min(wanted, limit - 1000)


def plots(largest):
    """{name: (title, axis, work)}; `largest` bounds the number of files."""
    most_open = most_open_files(max(largest // 10, 100))
    counts = decades(1000, largest)
    return {
        'directory': ('Files in one directory', 'files', lambda system: files(system, counts, 0)),
        'tree': (f'Files in a tree, {PER_DIRECTORY} in each directory', 'files',
                 lambda system: files(system, counts, PER_DIRECTORY)),
        'file-size': ('Size of a sparse file', 'bytes',
                      lambda system: file_size(system, [1, *(4096 << (5 * i) for i in range(5)), 100 << 30])),
        'open-files': ('Open files', 'files', lambda system: open_files(system, decades(10, most_open))),
        'threads': ('Threads', 'threads', lambda system: threads(system, [1, 2, 4, 8, 16, 32, 64])),
    }


def measure(system, work):
    """{line: [[x, value]]}"""
    lines = {}
    try:
        system.create()
        systems.drop_caches()
        system.mount()
        for x, values in work(system):
            say(f'  {x}: ' + ', '.join(f'{line} {value:,.0f}' for line, value in values.items()))
            for line, value in values.items():
                lines.setdefault(line, []).append([x, value])
    finally:
        system.destroy()
    return lines


def knees(lines, factor):
    """[(line, x, how many times worse than at the size before)]"""
    found = []
    for line, points in lines.items():
        for (_, before), (x, after) in zip(points, points[1:]):
            worse = after / before if line.endswith('[us]') else before / after
            if worse > factor:
                found.append((line, x, worse))
    return found


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backing', default='ext4', help='as for run.py (default: ext4)')
    parser.add_argument('--image-dir', default='/var/tmp')
    parser.add_argument('--turnkeyfs', default=os.path.join(run.TOP, 'build-release', 'turnkeyfs'))
    parser.add_argument('--cache', default=os.path.join(run.TOP, 'build-bench'))
    parser.add_argument('--systems', type=run.words, default=['turnkeyfs', 'plain'])
    parser.add_argument('--only', type=run.words, help='plots, with commas')
    parser.add_argument('--largest', type=int, default=1_000_000, help='files at most (default: 1000000)')
    parser.add_argument('--knee', type=float, default=2)
    parser.add_argument('--out', metavar='DIR', required=True, help='where scale.json and scale-*.svg go')
    return parser.parse_args()


def main():
    options = arguments()
    if os.geteuid():
        raise SystemExit('scale.py: needs root: it mounts filesystems and drops caches')
    os.makedirs(options.out, exist_ok=True)
    path = os.path.join(options.out, 'scale.json')
    found = {'schema': 1, 'date': time.strftime('%Y-%m-%d'), 'backing': options.backing,
             'environment': report.environment(), 'plots': {}}
    if options.only and os.path.exists(path):
        with open(path, encoding='utf-8') as old:
            found['plots'] = json.load(old)['plots']
    with tempfile.TemporaryDirectory(prefix='turnkeyfs-bench-', dir='/var/tmp') as work:
        with run.backing_filesystem(options.backing, work, options.image_dir) as place:
            context = run.Context(work, place, options.cache, options.turnkeyfs)
            for name, (title, axis, work_of) in plots(options.largest).items():
                if options.only and name not in options.only:
                    continue
                by_system = {}
                for system in run.chosen_systems(options.systems, context):
                    say(f'{name}: {system.name}')
                    by_system[system.name] = measure(system, work_of)
                    for line, x, worse in knees(by_system[system.name], options.knee):
                        print(f'knee: {name}: {system.name}: {line} is {worse:.1f} times worse at {x:,}', flush=True)
                found['plots'][name] = {'title': title, 'axis': axis, 'systems': by_system}
                report.write_json(path, found)
                with open(os.path.join(options.out, f'scale-{name}.svg'), 'w', encoding='utf-8') as out:
                    out.write(plot.svg(title, axis, by_system))
    return 0


if __name__ == '__main__':
    sys.exit(main())
