# SPDX-License-Identifier: Apache-2.0
"""
From samples to tables and JSON.

Samples are {metric: {system: [value per round]}}. A ratio above 1 always means
that turnkeyfs is better, whichever way the metric counts.
"""

import json
import os
import platform
import statistics
import subprocess

from workloads import METRICS

PASSTHROUGHS = ('ptll', 'ptll-wb')


def medians(samples):
    return {metric: {system: statistics.median(values) for system, values in by_system.items() if values}
            for metric, by_system in samples.items()}


def ratio(metric, ours, theirs):
    """How many times better `ours` is; None where it can't be said."""
    if not ours or not theirs:
        return None
    return ours / theirs if METRICS[metric].better == 'more' else theirs / ours


def ratios(middle):
    """{metric: {'gocryptfs': x, 'passthrough': x}}: turnkeyfs against gocryptfs and the better passthrough."""
    result = {}
    for metric, by_system in middle.items():
        ours = by_system.get('turnkeyfs')
        passthroughs = [ratio(metric, ours, by_system[name]) for name in PASSTHROUGHS if name in by_system]
        passthroughs = [value for value in passthroughs if value is not None]
        result[metric] = {'gocryptfs': ratio(metric, ours, by_system.get('gocryptfs')),
                          'passthrough': min(passthroughs) if passthroughs else None}
    return result


def spread(values):
    """(max - min) / median in percent."""
    middle = statistics.median(values)
    return round(100 * (max(values) - min(values)) / middle) if middle else 0


def number(value):
    if value is None:
        return '-'
    if value >= 1000:
        return f'{value:,.0f}'
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def _rows(title, header, rows):
    table = [[title, *header], *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    out = []
    for i, row in enumerate(table):
        out.append('| ' + ' | '.join([row[0].ljust(widths[0])] +
                                     [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]) + ' |')
        if i == 0:
            out.append('|' + '|'.join(['-' * (widths[0] + 2)] + ['-' * (width + 1) + ':' for width in widths[1:]]) + '|')
    return '\n'.join(out)


def table(samples, systems):
    """Medians and ratios, then the spread, as Markdown."""
    middle = medians(samples)
    compared = ratios(middle)
    metrics = [metric for metric in METRICS if middle.get(metric)]
    header = list(systems)
    with_ratios = 'turnkeyfs' in systems and len(systems) > 1
    if with_ratios:
        header += ['vs gocryptfs', 'vs passthrough']
    rows = []
    for metric in metrics:
        row = [f'{metric} [{METRICS[metric].unit}]'] + [number(middle[metric].get(system)) for system in systems]
        if with_ratios:
            row += [number(compared[metric][peer]) for peer in ('gocryptfs', 'passthrough')]
        rows.append(row)
    out = [_rows('median', header, rows)]
    if any(len(values) > 1 for by_system in samples.values() for values in by_system.values()):
        rows = [[metric] + [str(spread(samples[metric][system])) if samples[metric].get(system) else '-'
                            for system in systems] for metric in metrics]
        out.append(_rows('spread %', systems, rows))
    return '\n\n'.join(out)


def environment():
    def line(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except OSError:
            return None
        return (done.stdout or done.stderr).strip().split('\n')[0] or None

    with open('/proc/cpuinfo', encoding='utf-8') as info:
        models = [entry.split(':', 1)[1].strip() for entry in info if entry.startswith('model name')]
    return {
        'kernel': platform.release(),
        'cpu': models[0] if models else platform.machine(),
        'cpus': os.cpu_count(),
        'memory_gib': round(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30)),
        'load_at_start': os.getloadavg()[0],
        'libfuse': line('pkg-config', '--modversion', 'fuse3'),
        'openssl': line('pkg-config', '--modversion', 'libcrypto'),
        'gocryptfs': line('gocryptfs', '-version'),
        'fio': line('fio', '--version'),
    }


def write_json(path, about, samples, failures):
    middle = medians(samples)
    result = {
        'schema': 1,
        **about,
        'metrics': {metric: {'unit': METRICS[metric].unit, 'better': METRICS[metric].better,
                             'samples': samples[metric], 'median': middle[metric],
                             'ratio': ratios(middle)[metric]}
                    for metric in METRICS if middle.get(metric)},
        'failures': failures,
    }
    with open(path, 'w', encoding='utf-8') as out:
        json.dump(result, out, indent=1)
        out.write('\n')
