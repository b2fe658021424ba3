# SPDX-License-Identifier: Apache-2.0
"""Rows about names and attributes: very many files."""

import os
import subprocess

from measuring import Unmeasured, Wrong, timed


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
    system.note_memory()
    result['rm_rf'] = count / timed(lambda: subprocess.run(['rm', '-rf', top], check=True))
    return result


def listing(system, inputs, _check):
    """The names of one large directory, without their attributes."""
    top = os.path.join(system.root, 'listing')
    os.mkdir(top)
    names = [f'entry {i} of the listing' for i in range(inputs.files)]
    for name in names:
        os.close(os.open(os.path.join(top, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    seconds = 0
    for _ in range(LISTINGS):
        system.cold()
        found = []
        seconds += timed(lambda: found.extend(os.listdir(top)))
        if len(found) != len(names) or set(found) != set(names):
            raise Wrong(f'{top} lists {len(found)} of {len(names)} names')
    return {'listing_cold': LISTINGS * len(names) / seconds}


LISTINGS = 3  # one takes hundredths of a second
PER_DIRECTORY = 500


def inodes(system, inputs, _check):
    """What each file that the kernel knows costs the daemon."""
    if not system.daemon or system.linear_list:
        raise Unmeasured
    top = os.path.join(system.root, 'inodes')
    for i in range(inputs.inodes):
        folder = os.path.join(top, f'd{i // PER_DIRECTORY}')
        if i % PER_DIRECTORY == 0:
            os.makedirs(folder)
        os.close(os.open(os.path.join(folder, f'file{i}'), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    system.cold()
    before = system.rss_bytes()
    seen = 0
    for folder, _, files in os.walk(top):
        for name in files:
            os.stat(os.path.join(folder, name))
        seen += 1 + len(files)
    after = system.rss_bytes()
    return {'inode_bytes': (after - before) / (system.known_inodes() or seen)}
