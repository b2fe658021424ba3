# SPDX-License-Identifier: Apache-2.0
"""
What is measured, in groups that share their files.

A group is a function (system, inputs, check): it works below system.root, which is
empty and mounted, and returns {metric: value}. With `check` it also compares what
it wrote with what comes back after a remount, outside the measured times.
"cold" means unmounted, caches dropped, mounted again; on tmpfs the backing files
stay in memory.
"""

from rows_files import inodes, listing, small_files
from rows_io import appends, random_4k, sequential, sequential_4k, two_writers
from rows_pgbench import pgbench
from rows_programs import sqlite, tree

GROUPS = {
    'sequential': (sequential, ('seqwrite', 'seqread_cold', 'seqread_warm', 'seqwrite_daemon_cpu',
                                'seqread_daemon_cpu')),
    'two_writers': (two_writers, ('seqwrite_2writers',)),
    'sequential_4k': (sequential_4k, ('seqwrite4k',)),
    'random_4k': (random_4k, ('randread4k_1job', 'randread4k_4jobs', 'randwrite4k_durable', 'randwrite4k_fsync',
                              'randwrite4k_fresh')),
    'appends': (appends, ('append100_fsync', 'append4k_fsync')),
    'small_files': (small_files, ('create_10k', 'statwalk_cold', 'readall_cold', 'rm_rf')),
    'listing': (listing, ('listing_cold',)),
    'inodes': (inodes, ('inode_bytes',)),
    'tree': (tree, ('untar', 'git_clone', 'git_status_cold', 'git_status_warm', 'tree_peak_rss')),
    'sqlite': (sqlite, ('sqlite_2000tx', 'sqlite_200krows')),
    'pgbench': (pgbench, ('pgbench',)),
}
