#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
From samples to JSON, and from JSON to tables: the Markdown of one or more results.

With --document, what lies between the two comments <!-- table --> and
<!-- end of table --> of that file is replaced by it.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

from metrics import METRICS

PASSTHROUGHS = ('ptll', 'ptll-wb')
PEERS = ('gocryptfs', 'passthrough')
BEGIN, END = '<!-- table -->\n', '<!-- end of table -->\n'
LINEAR_LIST = ('passthrough_ll finds each inode by going through a list of all it knows: its rows with 10,000 files '
               'show that, too.')


def medians(samples):
    return {metric: {system: statistics.median(values) for system, values in by_system.items() if values}
            for metric, by_system in samples.items()}


def ratio(metric, ours, theirs):
    """How many times better `ours` is; None where it can't be said."""
    if not ours or not theirs:
        return None
    return ours / theirs if METRICS[metric].better == 'more' else theirs / ours


def ratios(metric, middle):
    """{peer: ratio or None} of one row: `middle` is its median by system."""
    ours = middle.get('turnkeyfs')
    passthroughs = [ratio(metric, ours, middle.get(name)) for name in PASSTHROUGHS]
    passthroughs = [value for value in passthroughs if value is not None]
    return {'gocryptfs': ratio(metric, ours, middle.get('gocryptfs')),
            'passthrough': min(passthroughs) if passthroughs else None}


def reached(metric, middle):
    """Whether turnkeyfs is where this row has to be; None if it can't be said."""
    row, compared = METRICS[metric], ratios(metric, middle)
    verdicts = [compared[peer] >= row.targets[peer] for peer in PEERS
                if row.targets[peer] is not None and compared[peer] is not None]
    if row.limit is not None and 'turnkeyfs' in middle:
        verdicts.append(middle['turnkeyfs'] <= row.limit)
    return all(verdicts) if verdicts else None


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


def _markdown(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    out = []
    for i, row in enumerate([header, *rows]):
        out.append('| ' + ' | '.join([row[0].ljust(widths[0])] +
                                     [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]) + ' |')
        if i == 0:
            out.append('|' + '|'.join(['-' * (widths[0] + 2)] +
                                      ['-' * (width + 1) + ':' for width in widths[1:]]) + '|')
    return '\n'.join(out)


def _compared(metric, middle):
    """The cells that compare: a ratio and its target for each peer, and the verdict."""
    row, compared = METRICS[metric], ratios(metric, middle)
    cells = []
    for peer in PEERS:
        target = row.targets[peer]
        cells += [number(compared[peer]), '' if target is None else f'{target:.2g}']
    if row.limit is not None:
        cells[1] = f'<= {row.limit}'
    verdict = reached(metric, middle)
    return cells + ['' if verdict is None else 'yes' if verdict else '**no**']


def table(samples, systems):
    """Medians, ratios and targets, then the spread, as Markdown."""
    middle = medians(samples)
    metrics = [metric for metric in METRICS if middle.get(metric)]
    compares = 'turnkeyfs' in systems and len(systems) > 1
    header = ['median', *systems]
    if compares:
        header += ['vs gocryptfs', 'target', 'vs passthrough', 'target', 'reached']
    rows = []
    for metric in metrics:
        row = [f'{metric} [{METRICS[metric].unit}]'] + [number(middle[metric].get(system)) for system in systems]
        rows.append(row + _compared(metric, middle[metric]) if compares else row)
    out = [_markdown(header, rows)]
    if any(system in PASSTHROUGHS for system in systems):
        out.append(LINEAR_LIST)
    if any(len(values) > 1 for by_system in samples.values() for values in by_system.values()):
        rows = [[metric] + [str(spread(samples[metric][system])) if samples[metric].get(system) else '-'
                            for system in systems] for metric in metrics]
        out.append('Spread, (max - min) / median in %:')
        out.append(_markdown(['spread', *systems], rows))
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


def result(about, systems, samples, failures):
    """All there is to know of one run, for JSON."""
    middle = medians(samples)
    return {
        'schema': 2,
        **about,
        'systems': systems,
        'metrics': {metric: {'unit': METRICS[metric].unit, 'better': METRICS[metric].better,
                             'samples': samples[metric], 'median': middle[metric],
                             'ratio': ratios(metric, middle[metric]), 'reached': reached(metric, middle[metric])}
                    for metric in METRICS if middle.get(metric)},
        'failures': failures,
    }


def write_json(path, found):
    with open(path, 'w', encoding='utf-8') as out:
        json.dump(found, out, indent=1)
        out.write('\n')


def read_json(path):
    with open(path, encoding='utf-8') as text:
        found = json.load(text)
    if found.get('schema') != 2:
        raise SystemExit(f'{path}: not written by this tests/bench/run.py')
    return found


def text(found):
    """One run as a section of Markdown."""
    machine = found['environment']
    samples = {metric: row['samples'] for metric, row in found['metrics'].items() if metric in METRICS}
    libraries = ', '.join(f'{name} {machine[name]}' for name in ('libfuse', 'openssl') if machine.get(name))
    out = [f'### {found["label"]}',
           f'{found["date"]}, {found["rounds"]} rounds, scale {found["scale"]:g}; {machine["cpus"]} CPUs '
           f'({machine["cpu"]}), Linux {machine["kernel"]}, {libraries}, load {machine["load_at_start"]:.1f} '
           'at the start.',
           table(samples, found['systems'])]
    out += [f'FAILED: {failure}' for failure in found['failures']]
    return '\n\n'.join(out)


def put_into(document, markdown):
    """Replace what lies between the comments."""
    with open(document, encoding='utf-8') as old:
        content = old.read()
    if BEGIN not in content or END not in content.split(BEGIN, 1)[1]:
        raise SystemExit(f'{document}: no {BEGIN.strip()} with an {END.strip()} after it')
    before, rest = content.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(document, 'w', encoding='utf-8') as new:
        new.write(before + BEGIN + '\n' + markdown + '\n\n' + END + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', nargs='+', metavar='JSON',
                        help='of tests/bench/run.py, in the order of the sections')
    parser.add_argument('--document', metavar='FILE')
    options = parser.parse_args()
    markdown = '\n\n'.join(text(read_json(path)) for path in options.results)
    if options.document:
        put_into(options.document, markdown)
    else:
        print(markdown)


if __name__ == '__main__':
    sys.exit(main())
