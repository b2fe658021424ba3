# SPDX-License-Identifier: Apache-2.0
"""
The rows of the table, in its order, and what each has to reach.

A target is how many times better turnkeyfs has to be than gocryptfs, and than the
better of the two passthroughs; a ratio above 1 always means better, whichever way
the row counts. A limit is a value that turnkeyfs may not go above.
"""

METRICS = {}


class Metric:
    """One row. `better`: 'more' or 'less'. `whole`: one value per round, the highest of all groups."""

    def __init__(self, name, unit, better, gocryptfs=None, passthrough=None, limit=None, whole=False):
        self.name, self.unit, self.better = name, unit, better
        self.targets = {'gocryptfs': gocryptfs, 'passthrough': passthrough}
        self.limit, self.whole = limit, whole


def _add(name, unit, better, *targets, **more):
    METRICS[name] = Metric(name, unit, better, *targets, **more)


_add('seqwrite', 'MiB/s', 'more', 2.2, 0.9)
_add('seqwrite_2writers', 'MiB/s', 'more', 2.2, 0.9)
_add('seqread_cold', 'MiB/s', 'more', 1.5, 1.0)
_add('seqread_warm', 'MiB/s', 'more', 6, 0.95)
_add('seqwrite4k', 'MiB/s', 'more', 12, 0.9)
_add('randread4k_1job', 'IOPS', 'more', 1.3, 0.9)
_add('randread4k_4jobs', 'IOPS', 'more', 1.5, 0.9)
_add('randwrite4k_fresh', 'IOPS', 'more', 8, 0.9)
_add('randwrite4k_durable', 'IOPS', 'more', 5, 0.45)
_add('randwrite4k_fsync', 'IOPS', 'more', 1.5, 0.85)
_add('append100_fsync', '1/s', 'more')
_add('append4k_fsync', '1/s', 'more')
_add('create_10k', 'files/s', 'more', 2, 1.1)
_add('readall_cold', 'files/s', 'more', 1.4, 1.1)
_add('statwalk_cold', 'files/s', 'more', 1.3, 1.1)
_add('rm_rf', 'files/s', 'more', 1.3, 1.1)
_add('listing_cold', 'names/s', 'more')
_add('untar', 's', 'less', 2, 1.1)
_add('git_clone', 's', 'less', 2, 1.1)
_add('git_status_cold', 's', 'less', 2, 1.1)
_add('git_status_warm', 's', 'less', 2, 1.1)
_add('sqlite_2000tx', 'tx/s', 'more', 4, 0.9)
_add('sqlite_200krows', 's', 'less', 8, 0.9)
_add('pgbench', 'tx/s', 'more', 2, 0.9)
# Half of gocryptfs's, and no more than 1.3 times a passthrough's.
_add('seqwrite_daemon_cpu', 'CPU s/GiB', 'less', 2, 1 / 1.3)
_add('seqread_daemon_cpu', 'CPU s/GiB', 'less', 2, 1 / 1.3)
_add('peak_rss', 'MiB', 'less', whole=True)
_add('peak_rss_beside_inodes', 'MiB', 'less', limit=64, whole=True)
_add('tree_peak_rss', 'MiB', 'less')
_add('inode_bytes', 'B', 'less', limit=200)
