#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
How long a rotation takes over very many small files, what it asks the vault, and
what programs on the same mount feel of it.

Needs root (it mounts). The root key is in the Key Vault emulator, so that its
calls can be counted. Prints one line of JSON per rotation.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / 'tests/integration'))
sys.dont_write_bytecode = True

import azure_volume  # noqa: E402
import emulator_client  # noqa: E402
import mountpoint  # noqa: E402

PER_DIRECTORY = 1000
WRITERS = 3
WAIT = 1800  # seconds for an unmount: much may have to be written


def say(text):
    print(text, file=sys.stderr, flush=True)


def path_of(mnt, number):
    return f'{mnt}/d{number // PER_DIRECTORY}/f{number}'


def fill_part(mnt, numbers):
    for number in numbers:
        if number % PER_DIRECTORY == 0:
            os.mkdir(f'{mnt}/d{number // PER_DIRECTORY}')
        fd = os.open(path_of(mnt, number), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, b'%099d\n' % number)
        os.close(fd)


def fill(mnt, count):
    """By several processes, whole directories each."""
    directories = -(-count // PER_DIRECTORY)
    children = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            for directory in range(writer, directories, WRITERS):
                first = directory * PER_DIRECTORY
                fill_part(mnt, range(first, min(first + PER_DIRECTORY, count)))
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Reader:
    """One program that opens, reads and closes random files, one after another."""

    def __init__(self, mnt, count):
        self.mnt, self.count = mnt, count
        self.random = random.Random(1)
        self.times = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while not self.stop.is_set():
            number = self.random.randrange(self.count)
            began = time.perf_counter()
            fd = os.open(path_of(self.mnt, number), os.O_RDONLY)
            content = os.read(fd, 200)
            os.close(fd)
            self.times.append(time.perf_counter() - began)
            assert int(content) == number, number

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def figures(self):
        times = sorted(self.times)
        return {
            'reads': len(times),
            'p50_us': round(times[len(times) // 2] * 1e6),
            'p99_us': round(times[len(times) * 99 // 100] * 1e6),
            'max_ms': round(times[-1] * 1e3),
        }


def rotation(volume):
    return volume.status(volume.cipher)['daemon']['rotation']


def wait_rotated(volume):
    """The rotation's own account of itself, at its end."""
    said = time.monotonic()
    while True:
        now = rotation(volume)
        if now['state'] != 'running':
            return now
        if time.monotonic() > said + 30:
            say(f"pass {now['passes']}, {now['files']} files, {now['left_s']} s left")
            said = time.monotonic()
        time.sleep(0.5)


def measure(volume, emulator, vault, args):
    result = {'files': args.files, 'load': os.getloadavg()[0]}
    with Reader(volume.mnt, args.files) as before:
        time.sleep(args.seconds)
    result['before'] = before.figures()
    vault.close()  # the connection may be too old
    vault.ok('POST', '/keys/kek/rotate', {})
    emulator.control('counters', reset=True)
    lease = volume.status(volume.cipher)['daemon']['lease']
    began = time.monotonic()
    azure_volume.turnkeyfs('rotate', volume.mnt)
    with Reader(volume.mnt, args.files) as meanwhile:
        end = wait_rotated(volume)
    took = time.monotonic() - began
    probes = volume.status(volume.cipher)['daemon']['lease']['probes'] - lease['probes']
    result |= {'during': meanwhile.figures(), 'state': end['state'], 'passes': end['passes'],
               'rewrapped': end['rewrapped'], 'failed': end['failed'], 'seconds': round(took, 1),
               'files_per_s': round(args.files / took),
               'calls': emulator.counters()['by_operation'], 'probes_among_them': probes,
               'keks': azure_volume.kek_states(volume)}
    with Reader(volume.mnt, args.files) as after:
        time.sleep(args.seconds)
    result['after'] = after.figures()
    volume.umount(timeout=WAIT).mount()
    with Reader(volume.mnt, args.files):
        time.sleep(1)
    return result


def configure(volume, emulator, vault, option):
    kms = {'rotation_window': 86400}
    if option:
        kms |= dict([option.split('=', 1)])
    azure_volume.write(volume.conf, azure_volume.sections(
        emulator, azure_volume.key_id(vault), volume.directory, kms=kms))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--turnkeyfs', default=mountpoint.turnkeyfs(), help='the program')
    parser.add_argument('--files', type=int, default=1_000_000)
    parser.add_argument('--seconds', type=float, default=20, help='how long to read before and after')
    parser.add_argument('--round', action='append', metavar='[KEY=VALUE]',
                        help='a rotation with this option in section [kms]; one without any if not given')
    parser.add_argument('--dir', help='where the encrypted directory goes')
    return parser.parse_args()


def main():
    args = arguments()
    os.environ['TURNKEYFS'] = args.turnkeyfs
    with tempfile.TemporaryDirectory(prefix='turnkeyfs-rewrap-', dir=args.dir) as directory:
        emulator = emulator_client.Emulator(pathlib.Path(directory) / 'emulator').start()
        volume = mountpoint.Volume(directory)
        try:
            vault = azure_volume.owned_vault(emulator)
            configure(volume, emulator, vault, '')
            volume.init().mount()
            say(f'making {args.files} files')
            fill(volume.mnt, args.files)
            for option in args.round or ['']:
                volume.umount(timeout=WAIT)
                configure(volume, emulator, vault, option)
                volume.mount()
                result = {'option': option} | measure(volume, emulator, vault, args)
                print(json.dumps(result), flush=True)
        finally:
            problems = volume.close()
            say('\n'.join(problems + volume.alarms()))
            emulator.kill()
            subprocess.run(['rm', '-rf', f'{directory}/cipher'], check=False)


if __name__ == '__main__':
    main()
