# SPDX-License-Identifier: Apache-2.0
"""Sizes, and data that is made once for all systems."""

import io
import os
import random
import subprocess
import tarfile

MIB = 1 << 20


class Inputs:
    """What workloads work with, below the cache directory. `scale` 1: full size."""

    def __init__(self, cache, scale):
        self.cache = os.path.join(cache, f'inputs-{scale:g}')
        self.seq_bytes = max(int(1024 * scale), 8) * MIB
        self.random_bytes = max(int(256 * scale), 8) * MIB
        self.synced_bytes = max(int(20 * scale * MIB) // 4096 * 4096, 100 * 4096)
        self.appends = max(int(2000 * scale), 50)
        self.files = max(int(10000 * scale), 100)
        self.inodes = max(int(50000 * scale), 5000)
        self.tree_files = max(int(8000 * scale), 100)
        self.transactions = max(int(2000 * scale), 50)
        self.rows = max(int(200000 * scale), 1000)
        self.pgbench_scale = max(int(10 * scale), 1)
        self.pgbench_seconds = max(int(20 * scale), 3)
        # Incompressible, and different in every 4 KiB block.
        self.pool = random.Random(1).randbytes(16 * MIB)

    def chunk(self, index):
        """The chunk of 1 MiB at that index of a sequential file."""
        start = (index * 1237 * 4096) % (15 * MIB)
        return self.pool[start:start + MIB]

    def small_file(self, index):
        start = (index * 8191) % (15 * MIB)
        return self.pool[start:start + 4096]

    def made_once(self, name, make):
        """The path of `name` in the cache; make(path) makes it if it is not there."""
        path = os.path.join(self.cache, name)
        if not os.path.exists(path):
            os.makedirs(self.cache, exist_ok=True)
            subprocess.run(['rm', '-rf', path + '.new'], check=True)
            make(path + '.new')
            os.rename(path + '.new', path)
        return path

    def tarball(self):
        """A source tree: many small text files in nested folders, with old modification times."""
        return self.made_once('tree.tar', lambda path: _make_tree(path, self.tree_files))

    def repository(self):
        """A bare, packed repository of the same tree."""
        tarball = self.tarball()
        return self.made_once('tree.git', lambda path: _make_repository(tarball, path))


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


def git(*arguments, cwd=None):
    subprocess.run(['git', '-c', 'user.name=bench', '-c', 'user.email=bench@localhost', '-c', 'gc.auto=0',
                    '-c', 'safe.directory=*', '-c', 'init.defaultBranch=main', *arguments], cwd=cwd, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _make_repository(tarball, path):
    tree = path + '.tree'
    subprocess.run(['rm', '-rf', tree], check=True)
    os.makedirs(tree)
    subprocess.run(['tar', 'xf', tarball, '-C', tree], check=True)
    git('init', '-q', cwd=tree)
    git('add', '.', cwd=tree)
    git('commit', '-q', '-m', 'tree', cwd=tree)
    git('clone', '-q', '--bare', '--no-local', tree, path)
    git('gc', '-q', cwd=path)
    subprocess.run(['rm', '-rf', tree], check=True)
