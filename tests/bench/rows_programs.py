# SPDX-License-Identifier: Apache-2.0
"""Rows about what programs do: tar, git, SQLite."""

import os
import random
import sqlite3
import statistics
import subprocess
import time

from inputs import git
from measuring import Wrong, timed


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
    result['git_clone'] = timed(lambda: git('clone', '-q', '--no-local', repository, clone))
    # git reads every file again whose time lies in the second of its index or behind it: the faster the
    # clone, the more of them. The first status that comes later puts that right, for all that follow.
    time.sleep(2)
    git('status', '--porcelain', cwd=clone)
    system.cold()
    result['git_status_cold'] = timed(lambda: git('status', '--porcelain', cwd=clone))
    result['git_status_warm'] = statistics.median(
        timed(lambda: git('status', '--porcelain', cwd=clone)) for _ in range(3))
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
