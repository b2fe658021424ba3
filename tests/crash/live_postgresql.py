#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
PostgreSQL on a recorded mount (live.py), and what it finds in a tree that a crash left.

Usage: live_postgresql.py TREE ROWS

TREE has a cluster in `data`, whose table t has at least the rows 1 to ROWS: it has to recover, to
have them, and to be sound, by amcheck and by the checksums of its pages. Its last line says what
is wrong.
"""

import glob
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile

SETTINGS = ('listen_addresses=', 'shared_buffers=512kB', 'max_wal_size=2MB', 'min_wal_size=2MB', 'autovacuum_naptime=1')
SOUND = '''
SELECT count(*), coalesce(max(n), 0) AS highest FROM t;
SELECT sum(length(x)) AS content FROM t;
SELECT count(bt_index_check(c.oid, true)) AS checked FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relam = 403;
SELECT count(*) AS damaged FROM verify_heapam('t');
SELECT count(*) AS damaged FROM verify_heapam('pg_class');
'''


def programs():
    """The directory of the newest installed version's programs; None: there is no server."""
    found = glob.glob('/usr/lib/postgresql/*/bin/initdb')
    return os.path.dirname(max(found, key=lambda path: int(path.split('/')[4]))) if found else None


def words(program, *rest):
    """A command as the server's user."""
    user = pwd.getpwnam('postgres')
    ids = ('--reuid', user.pw_uid, '--regid', user.pw_gid, '--clear-groups', '--')
    return [str(word) for word in ('setpriv', *ids, os.path.join(programs(), program), *rest)]


def give_away(top):
    user = pwd.getpwnam('postgres')
    for directory, _, files in os.walk(top):
        os.chmod(directory, 0o700)
        os.chown(directory, user.pw_uid, user.pw_gid)
        for name in files:
            os.chown(os.path.join(directory, name), user.pw_uid, user.pw_gid, follow_symlinks=False)


def initialize(data):
    """A new cluster, by who owns the mount, with files as small as may be."""
    os.mkdir(data, 0o700)
    give_away(data)
    subprocess.run(words('initdb', '-D', data, '-U', 'postgres', '--auth=trust', '--data-checksums', '--wal-segsize=1',
                         '--no-instructions'), check=True, stdout=subprocess.DEVNULL, cwd='/')
    subprocess.run(words('postgres', '--single', '-D', data, 'postgres'), check=True, cwd='/', text=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   input='CREATE TABLE t (n int PRIMARY KEY, x text)\nCREATE EXTENSION amcheck\n')


class Session:
    """A psql that answers line by line."""

    def __init__(self, sockets):
        self.psql = subprocess.Popen(words('psql', '-h', sockets, '-U', 'postgres', '-qAtX', '-v', 'ON_ERROR_STOP=1', 'postgres'),
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd='/')

    def do(self, text):
        self.psql.stdin.write(f'{text};\n\\echo done\n')
        self.psql.stdin.flush()
        for line in self.psql.stdout:
            if line == 'done\n':
                return
        raise AssertionError(f'psql is gone at: {text[:60]}')

    def end(self):
        self.psql.stdin.close()
        self.psql.wait(60)


def work(session, recording, rng, rows=0):
    """Transactions, updates, checkpoints; what is committed is marked."""
    for turn in range(40):
        count = rng.randrange(1, 12)
        session.do('BEGIN')
        session.do(f"INSERT INTO t SELECT n, repeat(md5(n::text), {rng.randrange(1, 60)}) "
                   f'FROM generate_series({rows + 1}, {rows + count}) n')
        session.do(f'UPDATE t SET x = x || x WHERE n % 17 = {turn % 17} AND length(x) < 4000')
        session.do('COMMIT')
        rows += count
        recording.mark(f'rows {rows}')
        if turn % 9 == 5:
            session.do('CHECKPOINT')
        if turn % 13 == 7:
            session.do('VACUUM t')


def program(place, recording, rng):
    """For live.py."""
    data = os.path.join(place, 'data')
    os.chmod(place, 0o755)
    initialize(data)
    with tempfile.TemporaryDirectory(dir='/dev/shm') as sockets:
        give_away(sockets)
        options = [word for setting in (*SETTINGS, f'unix_socket_directories={sockets}') for word in ('-c', setting)]
        server = subprocess.Popen(words('postgres', '-D', data, *options), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd='/')
        try:
            subprocess.run(words('pg_isready', '-q', '-h', sockets, '-t', '60'), check=False, cwd='/')
            while subprocess.run(words('pg_isready', '-q', '-h', sockets), check=False, cwd='/').returncode:
                if server.poll() is not None:
                    raise AssertionError('the server does not start')
            recording.mark('rows 0')
            recording.mark('go')
            session = Session(sockets)
            work(session, recording, rng)
            session.end()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(120)


def numbers(text):
    """What a single-user server printed: {column: [values]}."""
    found = {}
    for name, value in re.findall(r'\d+: (\w+) = "(-?\d+)"', text):
        found.setdefault(name, []).append(int(value))
    return found


def judge(tree, rows):
    """What is wrong with a tree; an empty text if nothing is."""
    data = os.path.join(tree, 'data')
    give_away(tree)
    if os.path.exists(os.path.join(data, 'postmaster.pid')):
        os.unlink(os.path.join(data, 'postmaster.pid'))  # the machine has booted since
    done = subprocess.run(words('postgres', '--single', '-j', '-F', '-D', data, 'postgres'), input=SOUND.strip().replace(';\n', ';\n\n') + '\n\n',
                          capture_output=True, text=True, cwd='/', check=False, errors='replace')
    trouble = [line for line in done.stderr.split('\n') if re.search(r'(ERROR|PANIC|FATAL|WARNING):', line)]
    if done.returncode != 0 or trouble:
        return f'PostgreSQL ended with {done.returncode}: {"; ".join(trouble)[:400]}'
    found = numbers(done.stdout)
    if not found.get('checked') or any(found.get('damaged', [1])):
        return f'amcheck: {found}'
    if found['count'][0] != found['highest'][0] or found['count'][0] < rows:
        return f'{found["count"][0]} rows up to {found["highest"][0]}, of {rows} that were committed'
    done = subprocess.run(words('pg_checksums', '--check', '-D', data), capture_output=True, text=True, cwd='/', check=False)
    if done.returncode != 0:
        return f'pg_checksums: {done.stderr.strip()[-300:]}'
    return ''


def main():
    wrong = judge(sys.argv[1], int(sys.argv[2]))
    print(wrong)
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
