# SPDX-License-Identifier: Apache-2.0
"""
What is measured, in groups that share their files.

A group is a function (system, inputs, check): it works below system.root, which is
empty and mounted, and returns {metric: value}. With `check` it also compares what
it wrote with what comes back after a remount, outside the measured times.
"cold" means unmounted, caches dropped, mounted again; on tmpfs the backing files
stay in memory.
"""

import hashlib
import io
import json
import os
import random
import sqlite3
import subprocess
import tarfile
import time

MIB = 1 << 20
METRICS = {}


class Metric:
    """A row of the table. `better`: 'more' or 'less'."""

    def __init__(self, name, unit, better='more'):
        self.name, self.unit, self.better = name, unit, better
        METRICS[name] = self


class Wrong(Exception):
    """A system gave back other data than was written."""


# Rows in the order of the table.
for _name, _unit, _better in (
        ('seqwrite', 'MiB/s', 'more'), ('seqwrite_2writers', 'MiB/s', 'more'),
        ('seqread_cold', 'MiB/s', 'more'), ('seqread_warm', 'MiB/s', 'more'), ('seqwrite4k', 'MiB/s', 'more'),
        ('randread4k_1job', 'IOPS', 'more'), ('randread4k_4jobs', 'IOPS', 'more'),
        ('randwrite4k', 'IOPS', 'more'), ('randrw4k_fsync', 'IOPS', 'more'),
        ('create_10k', 'files/s', 'more'), ('statwalk_cold', 'files/s', 'more'),
        ('readall_cold', 'files/s', 'more'), ('rm_rf', 'files/s', 'more'),
        ('untar', 's', 'less'), ('git_clone', 's', 'less'), ('git_status_cold', 's', 'less'),
        ('sqlite_2000tx', 'tx/s', 'more'), ('sqlite_200krows', 's', 'less'),
        ('seqwrite_daemon_cpu', 'CPU s/GiB', 'less'), ('seqread_daemon_cpu', 'CPU s/GiB', 'less'),
        ('seqwrite_peak_rss', 'MiB', 'less'), ('seqread_peak_rss', 'MiB', 'less'),
        ('tree_peak_rss', 'MiB', 'less')):
    Metric(_name, _unit, _better)


class Inputs:
    """Sizes, and data made once for all systems, below the cache directory. `scale` 1: full size."""

    def __init__(self, cache, scale):
        self.cache = os.path.join(cache, f'inputs-{scale:g}')
        self.seq_bytes = max(int(1024 * scale), 8) * MIB
        self.random_bytes = max(int(256 * scale), 8) * MIB
        self.synced_bytes = max(int(20 * scale * MIB) // 4096 * 4096, 100 * 4096)
        self.files = max(int(10000 * scale), 100)
        self.tree_files = max(int(8000 * scale), 100)
        self.transactions = max(int(2000 * scale), 50)
        self.rows = max(int(200000 * scale), 1000)
        # Incompressible, and different in every 4 KiB block.
        self.pool = random.Random(1).randbytes(16 * MIB)

    def chunk(self, index):
        """The chunk of 1 MiB at that index of a sequential file."""
        start = (index * 1237 * 4096) % (15 * MIB)
        return self.pool[start:start + MIB]

    def small_file(self, index):
        start = (index * 8191) % (15 * MIB)
        return self.pool[start:start + 4096]

    def tarball(self):
        """A source tree: many small text files in nested folders, with old modification times."""
        path = os.path.join(self.cache, 'tree.tar')
        if not os.path.exists(path):
            os.makedirs(self.cache, exist_ok=True)
            _make_tree(path + '.new', self.tree_files)
            os.rename(path + '.new', path)
        return path

    def repository(self):
        """A bare, packed repository of the same tree."""
        path = os.path.join(self.cache, 'tree.git')
        if not os.path.exists(path):
            _make_repository(self.tarball(), path)
        return path


def _make_tree(path, count):
    rand = random.Random(2)
    words = [''.join(rand.choices('abcdefghijklmnopqrstuvwxyz_', k=rand.randint(2, 11))) for _ in range(4000)]
    with tarfile.open(path, 'w') as tar:
        for i in range(count):
            size = min(int(rand.lognormvariate(8.7, 1.2)), 400000)
            text = []
            length = 0
            while length < size:
                line = ' '.join(rand.choices(words, k=9)) + ';\n'
                text.append(line)
                length += len(line)
            data = ''.join(text)[:size].encode()
            member = tarfile.TarInfo(f'tree/d{i % 20:02}/d{i // 20 % 20:02}/file{i:05}.c')
            member.size = len(data)
            member.mode = 0o644
            member.mtime = 1500000000 + i * 1000
            member.uid, member.gid = os.getuid(), os.getgid()
            tar.addfile(member, io.BytesIO(data))


def _git(*arguments, cwd=None):
    subprocess.run(['git', '-c', 'user.name=bench', '-c', 'user.email=bench@localhost', '-c', 'gc.auto=0',
                    '-c', 'safe.directory=*', '-c', 'init.defaultBranch=main', *arguments], cwd=cwd, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _make_repository(tarball, path):
    tree = path + '.tree'
    subprocess.run(['rm', '-rf', tree, path + '.new'], check=True)
    os.makedirs(tree)
    subprocess.run(['tar', 'xf', tarball, '-C', tree], check=True)
    _git('init', '-q', cwd=tree)
    _git('add', '.', cwd=tree)
    _git('commit', '-q', '-m', 'tree', cwd=tree)
    _git('clone', '-q', '--bare', '--no-local', tree, path + '.new')
    _git('gc', '-q', cwd=path + '.new')
    os.rename(path + '.new', path)
    subprocess.run(['rm', '-rf', tree], check=True)


def timed(work, *arguments):
    begin = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begin


def _write_file(path, inputs, count, first=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for i in range(first, first + count):
        written = os.write(fd, inputs.chunk(i))
        if written != MIB:
            raise OSError(f'short write: {written}')
    os.fsync(fd)
    os.close(fd)


def _read_file(path, digest=None):
    buffer = memoryview(bytearray(MIB))
    with open(path, 'rb', buffering=0) as file:
        while True:
            got = file.readinto(buffer)
            if not got:
                return
            if digest:
                digest.update(buffer[:got])


def _same_file(path, inputs, count):
    got, want = hashlib.sha256(), hashlib.sha256()
    _read_file(path, got)
    for i in range(count):
        want.update(inputs.chunk(i))
    if got.digest() != want.digest():
        raise Wrong(f'{path} is not what was written')


def sequential(system, inputs, check):
    count = inputs.seq_bytes // MIB
    gib = inputs.seq_bytes / (1 << 30)
    path = os.path.join(system.root, 'sequential')
    result = {}

    before = system.cpu_seconds()
    result['seqwrite'] = count / timed(_write_file, path, inputs, count)
    if before is not None:
        result['seqwrite_daemon_cpu'] = (system.cpu_seconds() - before) / gib
        result['seqwrite_peak_rss'] = system.peak_rss_mib()

    system.cold()
    before = system.cpu_seconds()
    result['seqread_cold'] = count / timed(_read_file, path)
    if before is not None:
        result['seqread_daemon_cpu'] = (system.cpu_seconds() - before) / gib
        result['seqread_peak_rss'] = system.peak_rss_mib()
    result['seqread_warm'] = count / timed(_read_file, path)

    if check:
        system.cold()
        _same_file(path, inputs, count)
    os.unlink(path)
    return result


def two_writers(system, inputs, _check):
    count = inputs.seq_bytes // MIB // 2

    def both():
        children = []
        for name in ('one', 'two'):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _write_file(os.path.join(system.root, name), inputs, count)
                    status = 0
                finally:
                    os._exit(status)
            children.append(pid)
        if any(os.waitpid(pid, 0)[1] for pid in children):
            raise OSError('a writer failed')

    return {'seqwrite_2writers': 2 * count / timed(both)}


def _fio(system, name, *options):
    """Run fio on one file below the root; returns its direction's totals."""
    done = subprocess.run(
        ['fio', '--output-format=json', '--name=' + name, '--filename=' + os.path.join(system.root, 'fio'),
         '--ioengine=psync', '--fallocate=none', '--group_reporting', '--thread', '--randrepeat=1', *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f'fio {name}: {(done.stderr or done.stdout)[-400:]}')
    job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
    if job['error']:
        raise OSError(f'fio {name}: error {job["error"]}')
    return job


def sequential_4k(system, inputs, _check):
    size = inputs.seq_bytes // 4
    job = _fio(system, 'seqwrite4k', '--rw=write', '--bs=4k', f'--size={size}', '--end_fsync=1')
    return {'seqwrite4k': job['write']['bw_bytes'] / MIB}


def random_4k(system, inputs, _check):
    size = inputs.random_bytes
    result = {}

    _fio(system, 'layout', '--rw=write', '--bs=1M', f'--size={size}', '--end_fsync=1')
    system.cold()
    job = _fio(system, 'randread', '--rw=randread', '--bs=4k', f'--size={size}', f'--io_size={size // 4}')
    result['randread4k_1job'] = job['read']['iops']
    system.cold()
    job = _fio(system, 'randread', '--rw=randread', '--bs=4k', '--numjobs=4', f'--size={size // 4}',
               f'--offset_increment={size // 4}')
    result['randread4k_4jobs'] = job['read']['iops']

    system.cold()
    job = _fio(system, 'randwrite', '--rw=randwrite', '--bs=4k', f'--size={size}', '--end_fsync=1')
    result['randwrite4k'] = job['write']['iops']
    system.cold()
    job = _fio(system, 'randrw', '--rw=randrw', '--bs=4k', f'--size={size}', f'--io_size={inputs.synced_bytes}',
               '--fsync=1')
    result['randrw4k_fsync'] = job['read']['iops'] + job['write']['iops']
    return result


def small_files(system, inputs, check):
    top = os.path.join(system.root, 'small')
    count = inputs.files
    paths = [os.path.join(top, f'd{i % 100:02}', f'f{i:05}') for i in range(count)]

    def create():
        for i in range(min(100, count)):
            os.makedirs(os.path.join(top, f'd{i:02}'))
        for i, path in enumerate(paths):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(fd, inputs.small_file(i))
            os.close(fd)

    def walk(folder):
        seen = 0
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                seen += walk(entry.path)
            else:
                seen += entry.stat(follow_symlinks=False).st_size == 4096
        return seen

    def walk_all():
        seen = walk(top)
        if seen != count:
            raise Wrong(f'{seen} of {count} files have their size')

    def read_all():
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            os.read(fd, 8192)
            os.close(fd)

    result = {'create_10k': count / timed(create)}
    system.cold()
    result['statwalk_cold'] = count / timed(walk_all)
    system.cold()
    result['readall_cold'] = count / timed(read_all)
    if check:
        system.cold()
        for i, path in enumerate(paths):
            with open(path, 'rb') as file:
                if file.read() != inputs.small_file(i):
                    raise Wrong(f'{path} is not what was written')
    result['rm_rf'] = count / timed(lambda: subprocess.run(['rm', '-rf', top], check=True))
    return result


def tree(system, inputs, check):
    result = {}
    tarball, repository = inputs.tarball(), inputs.repository()

    result['untar'] = timed(lambda: subprocess.run(['tar', 'xf', tarball, '-C', system.root], check=True))
    if check:
        system.cold()
        # Content, modes and modification times.
        compared = subprocess.run(['tar', 'df', tarball, '-C', system.root], capture_output=True, text=True)
        if compared.returncode:
            lines = compared.stdout.strip().split('\n')
            raise Wrong(f'untar: {len(lines)} differences after a remount, such as {lines[0]}')
    clone = os.path.join(system.root, 'clone')
    result['git_clone'] = timed(lambda: _git('clone', '-q', '--no-local', repository, clone))
    system.cold()
    result['git_status_cold'] = timed(lambda: _git('status', '--porcelain', cwd=clone))
    peak = system.peak_rss_mib()
    if peak is not None:
        result['tree_peak_rss'] = peak
    return result


def sqlite(system, inputs, check):
    path = os.path.join(system.root, 'bench.db')
    # Autocommit: every statement outside BEGIN is a transaction.
    database = sqlite3.connect(path, isolation_level=None)
    database.execute('PRAGMA journal_mode = WAL')
    database.execute('PRAGMA synchronous = FULL')
    database.execute('CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, v TEXT)')
    database.execute('CREATE INDEX t_k ON t (k)')
    keys = random.Random(3)

    def transactions():
        for i in range(inputs.transactions):
            database.execute('INSERT INTO t (k, v) VALUES (?, ?)', (keys.randrange(1 << 30), f'{i:0100}'))

    def rows():
        database.execute('BEGIN')
        database.executemany('INSERT INTO t (k, v) VALUES (?, ?)',
                             ((keys.randrange(1 << 30), f'{i:0100}') for i in range(inputs.rows)))
        database.execute('COMMIT')

    result = {'sqlite_2000tx': inputs.transactions / timed(transactions), 'sqlite_200krows': timed(rows)}
    database.close()
    if check:
        system.cold()
        database = sqlite3.connect(path)
        verdict = database.execute('PRAGMA integrity_check').fetchone()[0]
        stored = database.execute('SELECT count(*) FROM t').fetchone()[0]
        database.close()
        if verdict != 'ok' or stored != inputs.transactions + inputs.rows:
            raise Wrong(f'sqlite: integrity_check says {verdict}, {stored} rows')
    return result


GROUPS = {
    'sequential': (sequential, ('seqwrite', 'seqread_cold', 'seqread_warm', 'seqwrite_daemon_cpu',
                                'seqread_daemon_cpu', 'seqwrite_peak_rss', 'seqread_peak_rss')),
    'two_writers': (two_writers, ('seqwrite_2writers',)),
    'sequential_4k': (sequential_4k, ('seqwrite4k',)),
    'random_4k': (random_4k, ('randread4k_1job', 'randread4k_4jobs', 'randwrite4k', 'randrw4k_fsync')),
    'small_files': (small_files, ('create_10k', 'statwalk_cold', 'readall_cold', 'rm_rf')),
    'tree': (tree, ('untar', 'git_clone', 'git_status_cold', 'tree_peak_rss')),
    'sqlite': (sqlite, ('sqlite_2000tx', 'sqlite_200krows')),
}
