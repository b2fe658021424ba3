#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
Record real mounts and check the states that crashes could have left of them.

Usage: live.py BUILD [--states N] [--seed N] [PROGRAM]...

BUILD is a build directory with tests/crash/turnkeyfs_recording and tests/crash/tk_crash.
Each program below is run on a mount whose backing directory is on a tmpfs; the daemon
records what it does there, and the program writes marks into the same file (judge.h).
"""

import argparse
import contextlib
import mmap
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile

import live_postgresql

BLOCK = 4096
MARK = 15
HEAD = struct.Struct('=IBBBB5Ii3Q2IQ32s')  # struct head in event.c


class Recording:
    """The file that the daemon records to, for marks."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def mark(self, text):
        data = text.encode()
        os.write(self.fd, HEAD.pack(0x544b4556, MARK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                    len(data), bytes(32)) + data)


def block(number, tag):
    return struct.pack('<Q', tag << 32 | number) * (BLOCK // 8)


def blocks(place, recording, rng, flags, write, count=60):
    """Blocks of a file, overwritten and made durable one by one."""
    fd = os.open(os.path.join(place, 'data'), os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        for tag in range(1, count):
            number = rng.randrange(10)
            recording.mark(f'begin data {number} {tag}')
            write(fd, number, block(number, tag))
            recording.mark(f'done data {number} {tag}')
    finally:
        os.close(fd)


def write_aligned(fd, number, data):
    """O_DIRECT wants memory that is aligned."""
    with mmap.mmap(-1, BLOCK) as page:
        page[:] = data
        os.pwritev(fd, [page], number * BLOCK)


def direct(place, recording, rng):
    def write(fd, number, data):
        write_aligned(fd, number, data)
        os.fdatasync(fd)
    blocks(place, recording, rng, os.O_DIRECT, write)


def synchronous(place, recording, rng):
    blocks(place, recording, rng, os.O_SYNC,
           lambda fd, number, data: os.pwrite(fd, data, number * BLOCK))


def data_synchronous(place, recording, rng):
    blocks(place, recording, rng, os.O_DSYNC | os.O_DIRECT,
           lambda fd, number, data: write_aligned(fd, number, data))


def mapped(place, recording, rng):
    fd = os.open(os.path.join(place, 'data'), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 10 * BLOCK)
    os.fsync(fd)
    with mmap.mmap(fd, 10 * BLOCK) as pages:
        for tag in range(1, 60):
            number = rng.randrange(10)
            recording.mark(f'begin data {number} {tag}')
            pages[number * BLOCK:(number + 1) * BLOCK] = block(number, tag)
            pages.flush()
            recording.mark(f'done data {number} {tag}')
    os.close(fd)


def editor(place, recording, rng):
    """Write beside, sync, rename over, sync the directory."""
    for tag in range(1, 20):
        number = rng.randrange(3)
        recording.mark(f'begin data {number} {tag}')
        beside = os.path.join(place, 'data.new')
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(os.path.join(place, 'data'), beside)
        fd = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(fd, block(number, tag), number * BLOCK)
        os.fsync(fd)
        os.close(fd)
        os.rename(beside, os.path.join(place, 'data'))
        fd = os.open(place, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        recording.mark(f'done data {number} {tag}')


def database(place, recording, rng, mode):
    db = sqlite3.connect(os.path.join(place, 'db'), isolation_level=None)
    db.execute(f'PRAGMA journal_mode = {mode}')
    db.execute('PRAGMA synchronous = EXTRA')
    db.execute('CREATE TABLE t (x)')
    recording.mark('rows 0')
    rows = 0
    for turn in range(30):
        db.execute('BEGIN')
        for _ in range(rng.randrange(1, 8)):
            rows += 1
            db.execute('INSERT INTO t VALUES (?)', (rng.randbytes(rng.randrange(101, 3000)),))
        db.execute('UPDATE t SET x = ? WHERE rowid = ?', (rng.randbytes(500), rng.randrange(1, rows + 1)))
        db.execute('COMMIT')
        recording.mark(f'rows {rows}')
        if mode == 'WAL' and turn % 10 == 9:
            db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    db.close()


def sqlite_rollback(place, recording, rng):
    database(place, recording, rng, 'DELETE')


def sqlite_wal(place, recording, rng):
    database(place, recording, rng, 'WAL')


PROGRAMS = {
    'direct': direct,
    'synchronous': synchronous,
    'data-synchronous': data_synchronous,
    'mapped': mapped,
    'editor': editor,
    'sqlite-rollback': sqlite_rollback,
    'sqlite-wal': sqlite_wal,
}
if live_postgresql.programs():
    PROGRAMS['postgresql'] = live_postgresql.program

# Each state costs seconds there.
FEWER = {'postgresql': 250}


def run(program, seed, build, scratch, states):
    """One program. The line of tk_crash; raises if a state is wrong."""
    turnkeyfs = os.path.join(build, 'tests/crash/turnkeyfs_recording')
    root = os.path.join(scratch, program)
    place = os.path.join(root, 'mnt')
    recorded = os.path.join(root, 'recording')
    keystore = os.path.join(root, 'keystore')
    conf = os.path.join(root, 'conf')
    os.makedirs(place)
    with open(conf, 'w', encoding='ascii') as text:
        text.write(f'[local]\nkeystore = {keystore}\n')
    env = dict(os.environ, TK_RECORD=recorded, TK_RECORD_ROOT=root)
    subprocess.run([turnkeyfs, 'init', '-c', conf, os.path.join(root, 'c')], check=True, env=env,
                   stdout=subprocess.DEVNULL)
    subprocess.run([turnkeyfs, 'mount', '-c', conf, os.path.join(root, 'c'), place], check=True, env=env)
    recording = Recording(recorded)
    try:
        if program != 'postgresql':  # it says itself when
            recording.mark('go')
        PROGRAMS[program](place, recording, random.Random(seed))
    finally:
        subprocess.run([turnkeyfs, 'umount', place], check=True)
    command = [os.path.join(build, 'tests/crash/tk_crash'), '--recording', recorded, '--keystore', keystore,
               '--states', str(states // FEWER.get(program, 1)), '--seed', str(seed), '--jobs', str(os.cpu_count())]
    if program in FEWER:
        command += ['--program', os.path.abspath(live_postgresql.__file__), '--second', '0']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stdout.write(done.stdout + done.stderr)
        raise AssertionError(f'{program}, seed {seed}: {recorded} is kept')
    return done.stdout.strip().split('\n')[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('--states', type=int, default=3000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('program', nargs='*', help='one of: ' + ' '.join(PROGRAMS))
    options = parser.parse_args()
    failed = 0
    scratch = tempfile.mkdtemp(prefix='tk_crash-', dir='/dev/shm')
    os.chmod(scratch, 0o755)  # PostgreSQL is another user
    for program in options.program or PROGRAMS:
        try:
            print(f'{program}: {run(program, options.seed, options.build, scratch, options.states)}', flush=True)
            shutil.rmtree(os.path.join(scratch, program))
        except (AssertionError, subprocess.CalledProcessError) as error:
            print(f'FAILED: {error}')
            failed += 1
    with contextlib.suppress(OSError):
        os.rmdir(scratch)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
