# SPDX-License-Identifier: Apache-2.0
"""Rows about content: sequential, random, appended."""

import hashlib
import json
import os
import subprocess

from inputs import MIB
from measuring import Wrong, timed


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

    system.cold()
    before = system.cpu_seconds()
    result['seqread_cold'] = count / timed(_read_file, path)
    if before is not None:
        result['seqread_daemon_cpu'] = (system.cpu_seconds() - before) / gib
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


def _fio(system, file, name, *options):
    """Run fio on a file below the root; returns its totals."""
    done = subprocess.run(
        ['fio', '--output-format=json', '--name=' + name, '--filename=' + os.path.join(system.root, file),
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
    job = _fio(system, 'fio', 'seqwrite4k', '--rw=write', '--bs=4k', f'--size={size}', '--end_fsync=1')
    return {'seqwrite4k': job['write']['bw_bytes'] / MIB}


def random_4k(system, inputs, _check):
    size = inputs.random_bytes
    result = {}

    _fio(system, 'fio', 'layout', '--rw=write', '--bs=1M', f'--size={size}', '--end_fsync=1')
    system.cold()
    job = _fio(system, 'fio', 'randread', '--rw=randread', '--bs=4k', f'--size={size}', f'--io_size={size // 4}')
    result['randread4k_1job'] = job['read']['iops']
    system.cold()
    job = _fio(system, 'fio', 'randread', '--rw=randread', '--bs=4k', '--numjobs=4', f'--size={size // 4}',
               f'--offset_increment={size // 4}')
    result['randread4k_4jobs'] = job['read']['iops']

    # What is in the file was written by an earlier mount: strict durability journals each overwrite.
    system.cold()
    job = _fio(system, 'fio', 'randwrite', '--rw=randwrite', '--bs=4k', f'--size={size}', '--end_fsync=1')
    result['randwrite4k_durable'] = job['write']['iops']
    system.cold()
    job = _fio(system, 'fio', 'synced', '--rw=randwrite', '--bs=4k', f'--size={size}',
               f'--io_size={inputs.synced_bytes}', '--fsync=1')
    result['randwrite4k_fsync'] = job['write']['iops']
    os.unlink(os.path.join(system.root, 'fio'))

    system.cold()
    job = _fio(system, 'fresh', 'randwrite', '--rw=randwrite', '--bs=4k', f'--size={size}', '--end_fsync=1')
    result['randwrite4k_fresh'] = job['write']['iops']
    return result


def appends(system, inputs, check):
    """A log, each line of which has to be on the disk before the next."""
    result = {}
    for name, size in (('append100_fsync', 100), ('append4k_fsync', 4096)):
        path = os.path.join(system.root, name)
        lines = [inputs.small_file(i)[:size] for i in range(inputs.appends)]
        # Made beforehand: passthrough_ll, with its writeback, appends at wrong places to what O_APPEND created.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))

        def append_all():
            fd = os.open(path, os.O_WRONLY | os.O_APPEND)
            for line in lines:
                os.write(fd, line)
                os.fsync(fd)
            os.close(fd)

        result[name] = len(lines) / timed(append_all)
        if check:
            system.cold()
            with open(path, 'rb') as file:
                if file.read() != b''.join(lines):
                    raise Wrong(f'{path} is not what was appended')
    return result
