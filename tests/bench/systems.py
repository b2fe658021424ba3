# SPDX-License-Identifier: Apache-2.0
"""
What is compared: each system mounts one backing directory at one mountpoint.

Daemons run in the foreground as children, so that their CPU time and memory are
read from /proc/PID, and log to a file of their own.
"""

import gzip
import json
import os
import resource
import shutil
import subprocess
import time

EXAMPLES = 'usr/share/doc/libfuse3-dev/examples'
PASSTHROUGH_SOURCES = ('passthrough_ll.c', 'passthrough_helpers.h')


class Unavailable(Exception):
    """This system can't run here; the text says why."""


class System:
    """One system on one backing directory. `name` is for the command line and the table."""

    groups = None  # of workloads; None: all of them
    linear_list = False  # finds an inode by going through all it knows

    def __init__(self, context):
        self.context = context
        self.backing = os.path.join(context.backing, self.name)
        self.mountpoint = os.path.join(context.work, 'mnt-' + self.name)
        self.log = os.path.join(context.work, self.name + '.log')
        self.daemon = None
        self.peak_kib = 0
        self.most_inodes = 0

    # What differs between systems.
    def available(self):
        """Raise Unavailable if it can't run."""

    def init(self):
        """Make what a mount needs in the empty backing directory."""

    def command(self):
        """The daemon, in the foreground."""
        raise NotImplementedError

    def umount_command(self):
        return ['umount', self.mountpoint]

    def known_inodes(self):
        """How many inodes the kernel knows of this mount; 0 if the daemon can't tell."""
        return 0

    # What is the same.
    @property
    def root(self):
        """Where workloads work."""
        return self.mountpoint

    def create(self):
        self.peak_kib = self.most_inodes = 0
        os.makedirs(self.backing)
        os.makedirs(self.mountpoint, exist_ok=True)
        self.init()

    def mount(self):
        with open(self.log, 'ab') as log:
            self.daemon = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           preexec_fn=_raise_file_limit)
        deadline = time.monotonic() + 30
        while not os.path.ismount(self.mountpoint):
            if self.daemon.poll() is not None:
                raise RuntimeError(f'{self.name}: the daemon ended with {self.daemon.returncode}: {self._log_end()}')
            if time.monotonic() > deadline:
                raise RuntimeError(f'{self.name}: not mounted after 30 s: {self._log_end()}')
            time.sleep(0.01)

    def unmount(self):
        if not self.daemon:
            return
        self.note_memory()
        for _ in range(20):
            done = subprocess.run(self.umount_command(), stdin=subprocess.DEVNULL, capture_output=True)
            if done.returncode == 0 or not os.path.ismount(self.mountpoint):
                break
            time.sleep(0.25)
        else:
            subprocess.run(['umount', '-l', self.mountpoint], check=False)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise RuntimeError(f'{self.name}: the daemon was still there 60 s after the unmount') from None
        finally:
            self.daemon = None

    def cold(self):
        """Unmount, drop what the kernel caches, mount."""
        self.unmount()
        drop_caches()
        self.mount()

    def destroy(self):
        self.unmount()
        shutil.rmtree(self.backing, ignore_errors=True)

    def cpu_seconds(self):
        """The daemon's CPU time so far; None without a daemon."""
        if not self.daemon:
            return None
        with open(f'/proc/{self.daemon.pid}/stat', encoding='ascii') as stat:
            fields = stat.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def _memory_kib(self, field):
        try:
            with open(f'/proc/{self.daemon.pid}/status', encoding='ascii') as status:
                return [int(line.split()[1]) for line in status if line.startswith(field + ':')][0]
        except (OSError, IndexError):
            return 0

    def rss_bytes(self):
        return 1024 * self._memory_kib('VmRSS')

    def note_memory(self):
        """Remember the daemon's peak memory, and how many inodes it knows: both are gone after an unmount."""
        if self.daemon:
            self.peak_kib = max(self.peak_kib, self._memory_kib('VmHWM'))
            self.most_inodes = max(self.most_inodes, self.known_inodes())

    def peak_rss_mib(self):
        """The highest memory of all daemons since the directory was made; None without a daemon."""
        self.note_memory()
        return self.peak_kib / 1024 if self.peak_kib else None

    def _log_end(self):
        with open(self.log, encoding='utf-8', errors='replace') as log:
            return log.read()[-500:].strip()


class Plain(System):
    name = 'plain'

    @property
    def root(self):
        return self.backing

    def mount(self):
        pass

    def unmount(self):
        pass


class Turnkeyfs(System):
    name = 'turnkeyfs'
    names = 'encrypted'
    durability = 'strict'
    io_uring = 'no'
    allow_other = 'yes'
    keep_cpus_awake = 'auto'

    def available(self):
        if not shutil.which(self.context.turnkeyfs):
            raise Unavailable(f'{self.context.turnkeyfs} is not there: build it, or name it with --turnkeyfs')

    def _configuration(self):
        return os.path.join(self.context.work, self.name + '.conf')

    def init(self):
        keystore = os.path.join(self.context.work, self.name + '.keystore')
        if os.path.exists(keystore):
            os.unlink(keystore)
        with open(self._configuration(), 'w', encoding='utf-8') as conf:
            conf.write(f'[volume]\nnames = {self.names}\n[local]\nkeystore = {keystore}\n'
                       f'[mount]\ndurability = {self.durability}\nio_uring = {self.io_uring}\n'
                       f'allow_other = {self.allow_other}\nkeep_cpus_awake = {self.keep_cpus_awake}\n')
        subprocess.run([self.context.turnkeyfs, 'init', '-c', self._configuration(), self.backing],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def command(self):
        return [self.context.turnkeyfs, 'mount', '-f', '-c', self._configuration(), self.backing, self.mountpoint]

    def umount_command(self):
        return [self.context.turnkeyfs, 'umount', self.mountpoint]

    def known_inodes(self):
        shown = subprocess.run([self.context.turnkeyfs, 'status', '--json', self.mountpoint], check=True,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return json.loads(shown.stdout)['daemon']['counters']['known_inodes']


class TurnkeyfsPlainNames(Turnkeyfs):
    name = 'plain-names'
    names = 'plain'
    groups = ('small_files', 'listing', 'inodes', 'tree')


class TurnkeyfsRootOnly(Turnkeyfs):
    """As gocryptfs is mounted here: for one user."""
    name = 'root-only'
    allow_other = 'no'
    groups = ('small_files', 'listing', 'tree')


class TurnkeyfsRelaxed(Turnkeyfs):
    name = 'relaxed'
    durability = 'relaxed'
    groups = ('random_4k', 'appends', 'sqlite', 'pgbench')


class TurnkeyfsHalting(Turnkeyfs):
    """Without [mount] keep_cpus_awake, which by default is in use where it is a gain."""
    name = 'halting'
    keep_cpus_awake = 'no'


class OverUring:
    """Mixed into a system: requests over io_uring, which root allows for the moment of mounting."""

    SWITCH = '/sys/module/fuse/parameters/enable_uring'

    def program(self):
        return self.context.turnkeyfs

    def available(self):
        super().available()
        linked = subprocess.run(['ldd', self.program()], capture_output=True, text=True).stdout
        if not os.path.exists(self.SWITCH) or 'liburing' not in linked:
            raise Unavailable('no FUSE over io_uring in this kernel and libfuse')

    def mount(self):
        with open(self.SWITCH, encoding='ascii') as switch:
            before = switch.read()
        try:
            self._switch('Y')
            super().mount()
        finally:
            self._switch(before)

    def _switch(self, state):
        with open(self.SWITCH, 'w', encoding='ascii') as switch:
            switch.write(state)


class TurnkeyfsUring(OverUring, Turnkeyfs):
    name = 'uring'
    io_uring = 'yes'


class Passthrough(System):
    """libfuse's own example, without encryption: what FUSE costs by itself."""
    name = 'ptll'
    linear_list = True
    options = ''

    def available(self):
        build_passthrough(self.context.cache)

    def command(self):
        return [build_passthrough(self.context.cache), '-f', '-o', f'source={self.backing}{self.options}',
                self.mountpoint]


class PassthroughWriteback(Passthrough):
    name = 'ptll-wb'
    options = ',writeback,cache=always'


class PassthroughUring(OverUring, PassthroughWriteback):
    name = 'ptll-wb-uring'
    options = ',writeback,cache=always,io_uring'

    def program(self):
        return build_passthrough(self.context.cache)


class Gocryptfs(System):
    name = 'gocryptfs'

    def available(self):
        if not shutil.which('gocryptfs'):
            raise Unavailable('gocryptfs is not installed')

    def init(self):
        subprocess.run(['gocryptfs', '-init', '-q', '-scryptn', '10', '-extpass', 'echo bench', self.backing],
                       check=True, stdin=subprocess.DEVNULL)

    def command(self):
        return ['gocryptfs', '-fg', '-q', '-extpass', 'echo bench', self.backing, self.mountpoint]


ALL = (Plain, Turnkeyfs, TurnkeyfsHalting, TurnkeyfsRootOnly, TurnkeyfsUring, TurnkeyfsRelaxed, TurnkeyfsPlainNames, Passthrough, PassthroughWriteback,
       PassthroughUring, Gocryptfs)


def drop_caches():
    os.sync()
    with open('/proc/sys/vm/drop_caches', 'w', encoding='ascii') as drop:
        drop.write('3\n')


def build_passthrough(cache):
    """The passthrough_ll of Debian's libfuse3-dev, built once into the cache directory."""
    program = os.path.join(cache, 'passthrough_ll')
    if os.path.exists(program):
        return program
    os.makedirs(cache, exist_ok=True)
    source = _passthrough_sources(cache)
    flags = subprocess.run(['pkg-config', '--cflags', '--libs', 'fuse3'], check=True, capture_output=True,
                           text=True).stdout.split()
    built = subprocess.run(['gcc', '-O2', '-D_FILE_OFFSET_BITS=64', os.path.join(source, 'passthrough_ll.c'),
                            '-o', program, *flags], capture_output=True, text=True)
    if built.returncode:
        raise Unavailable(f'passthrough_ll does not build: {built.stderr[-500:]}')
    return program


def _passthrough_sources(cache):
    """Small images leave /usr/share/doc out of packages: then the package is unpacked again."""
    installed = os.path.join('/', EXAMPLES)
    unpacked = os.path.join(cache, 'libfuse3-dev')
    if not _have_sources(installed):
        os.makedirs(unpacked, exist_ok=True)
        subprocess.run(['apt-get', 'download', '-qq', 'libfuse3-dev'], cwd=unpacked, check=True)
        for package in os.listdir(unpacked):
            if package.endswith('.deb'):
                subprocess.run(['dpkg-deb', '-x', package, '.'], cwd=unpacked, check=True)
        installed = os.path.join(unpacked, EXAMPLES)
    if not _have_sources(installed):
        raise Unavailable('libfuse3-dev has no passthrough_ll.c among its examples')
    copied = os.path.join(cache, 'passthrough')
    os.makedirs(copied, exist_ok=True)
    for name in PASSTHROUGH_SOURCES:
        path = os.path.join(installed, name)
        opened = open(path, 'rb') if os.path.exists(path) else gzip.open(path + '.gz', 'rb')
        with opened as source, open(os.path.join(copied, name), 'wb') as copy:
            shutil.copyfileobj(source, copy)
    return copied


def _have_sources(folder):
    return all(os.path.exists(os.path.join(folder, name)) or os.path.exists(os.path.join(folder, name + '.gz'))
               for name in PASSTHROUGH_SOURCES)


def _raise_file_limit():
    """passthrough_ll keeps a descriptor for every inode it knows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
