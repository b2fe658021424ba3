# SPDX-License-Identifier: Apache-2.0
"""
PostgreSQL on the mount, under pgbench's TPC-B-like load.

PostgreSQL does not run as root, and half of the systems serve only who mounted
them: so it runs in a user namespace, where root is called postgres. The kernel
makes none within a chroot: there, `unshare --mount` and pivot_root come first.
"""

import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time

from measuring import Wrong
from systems import Unavailable

CLIENTS = 4
PORT = '54320'  # of a socket in a directory of our own
LIMIT = 300  # seconds for anything but pgbench itself


def _programs():
    found = glob.glob('/usr/lib/postgresql/*/bin/postgres')
    if not found or not shutil.which('pgbench'):
        raise Unavailable('PostgreSQL is not installed')
    return os.path.dirname(max(found, key=lambda path: int(path.split('/')[4])))


class Server:
    """A server on the data directory `data`; its socket and log are elsewhere."""

    def __init__(self, data):
        self.bin, self.data = _programs(), data
        self.user = pwd.getpwnam('postgres')
        self.process = None
        self.folder = tempfile.mkdtemp(prefix='turnkeyfs-bench-', dir='/tmp')  # a socket's path must be short

    def words(self, program, *words):
        return ['unshare', '--user', f'--map-user={self.user.pw_uid}', f'--map-group={self.user.pw_gid}', '--',
                os.path.join(self.bin, program), *words]

    def run(self, program, *words, timeout=LIMIT):
        done = subprocess.run(self.words(program, *words), cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise OSError(f'{program}: {done.stderr[-400:]}')
        return done.stdout

    def client(self, program, *words, **more):
        return self.run(program, '-h', self.folder, '-p', PORT, '-U', 'postgres', *words, **more)

    def start(self):
        with open(os.path.join(self.folder, 'log'), 'ab') as log:
            self.process = subprocess.Popen(
                self.words('postgres', '-D', self.data, '-p', PORT, '-c', 'listen_addresses=',
                           '-c', f'unix_socket_directories={self.folder}'),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                return self.client('pg_isready', '-q')
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise OSError(f'PostgreSQL does not start: {self.log_end()}') from None
                time.sleep(0.1)

    def log_end(self):
        with open(os.path.join(self.folder, 'log'), encoding='utf-8', errors='replace') as log:
            return log.read()[-400:]

    def stop(self):
        if self.process:
            self.process.send_signal(2)  # SIGINT: in order
            self.process.wait(LIMIT)
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _make_cluster(path, scale):
    """A cluster that pgbench has filled, made once on the disk of the cache, as a tar archive."""
    with tempfile.TemporaryDirectory(prefix='cluster-', dir=os.path.dirname(path)) as folder:
        data = os.path.join(folder, 'data')
        with Server(data) as server:
            server.run('initdb', '-D', data, '-U', 'postgres', '--auth=trust', '--no-sync')
            server.start()
            server.client('pgbench', '-q', '-i', '-s', str(scale), 'postgres')
        subprocess.run(['tar', 'cf', path, '-C', folder, 'data'], check=True)


def pgbench(system, inputs, check):
    _programs()
    archive = inputs.made_once('cluster.tar', lambda path: _make_cluster(path, inputs.pgbench_scale))
    subprocess.run(['tar', 'xf', archive, '-C', system.root], check=True)
    system.cold()
    with Server(os.path.join(system.root, 'data')) as server:
        server.start()
        output = server.client('pgbench', '-n', '-c', str(CLIENTS), '-j', '2', '-T', str(inputs.pgbench_seconds),
                               'postgres', timeout=LIMIT + inputs.pgbench_seconds)
        if check:
            server.stop()
            system.cold()
            server.start()
            total = 'SELECT sum(abalance) = (SELECT sum(delta) FROM pgbench_history) FROM pgbench_accounts'
            if server.client('psql', '-Atc', total, 'postgres').strip() != 't':
                raise Wrong('pgbench: the accounts are not the sum of their history')
    return {'pgbench': float(re.search(r'tps = ([0-9.]+)', output).group(1))}
