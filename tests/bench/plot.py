# SPDX-License-Identifier: Apache-2.0
"""
Plots as SVG: one panel for each line, side by side, both axes logarithmic, the systems
in it as curves. Light or dark as the reader's browser is.
"""

import math
from xml.sax.saxutils import escape

PANEL_WIDTH, PANEL_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 300, 190, 56, 20, 64, 44
STYLE = '''
  svg { background: #ffffff; font: 12px sans-serif }
  text { fill: #333333 }
  .frame { stroke: #999999; fill: none } .grid { stroke: #e4e4e4 }
  .curve { fill: none; stroke-width: 2 }
  .c0 { stroke: #0b62c4 } .c1 { stroke: #8a8a8a } .c2 { stroke: #c2410c } .c3 { stroke: #2f7d32 }
  .d0 { fill: #0b62c4 } .d1 { fill: #8a8a8a } .d2 { fill: #c2410c } .d3 { fill: #2f7d32 }
  @media (prefers-color-scheme: dark) {
    svg { background: #111418 } text { fill: #d8d8d8 } .frame { stroke: #777777 } .grid { stroke: #2a2f36 }
    .c0 { stroke: #6cb2ff } .c2 { stroke: #ff9a5c } .c3 { stroke: #7ecb82 }
    .d0 { fill: #6cb2ff } .d2 { fill: #ff9a5c } .d3 { fill: #7ecb82 }
  }
'''


def short(value):
    """1500 as 1.5k, for an axis."""
    for unit, factor in (('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if value >= factor:
            return f'{value / factor:.3g}{unit}'
    return f'{value:.3g}'


def _range(values):
    """Whole decades around the values, as exponents."""
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


class _Panel:
    def __init__(self, left, curves):
        """`curves`: [(class number, points)]"""
        self.left, self.curves = left, curves
        points = [point for _, some in curves for point in some]
        self.x_low, self.x_high = _range([x for x, _ in points])
        self.y_low, self.y_high = _range([y for _, y in points])

    def x(self, value):
        part = (math.log10(value) - self.x_low) / (self.x_high - self.x_low)
        return self.left + part * (PANEL_WIDTH - LEFT - RIGHT)

    def y(self, value):
        part = (math.log10(value) - self.y_low) / (self.y_high - self.y_low)
        return TOP + (1 - part) * (PANEL_HEIGHT - 10)

    def draw(self, title, axis):
        bottom, right = self.y(10 ** self.y_low), self.x(10 ** self.x_high)
        out = [f'<text x="{self.left}" y="{TOP - 10}">{escape(title)}</text>',
               f'<text x="{right:.1f}" y="{bottom + 32:.1f}" text-anchor="end">{escape(axis)}</text>']
        for power in range(self.y_low, self.y_high + 1):
            y = self.y(10 ** power)
            out.append(f'<line class="grid" x1="{self.left}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<text x="{self.left - 5}" y="{y + 4:.1f}" text-anchor="end">{short(10 ** power)}</text>')
        step = max(1, (self.x_high - self.x_low + 4) // 5)
        for power in range(self.x_low, self.x_high + 1, step):
            x = self.x(10 ** power)
            out.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{short(10 ** power)}</text>')
        out.append(f'<rect class="frame" x="{self.left}" y="{TOP}" width="{right - self.left:.1f}" '
                   f'height="{bottom - TOP:.1f}"/>')
        for number, points in self.curves:
            path = ' '.join(f'{self.x(x):.1f},{self.y(y):.1f}' for x, y in points)
            out.append(f'<polyline class="curve c{number}" points="{path}"/>')
            out += [f'<circle class="d{number}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3"/>' for x, y in points]
        return out


def svg(title, axis, by_system):
    """`by_system`: {system: {line: [[x, value]]}}"""
    names = list(by_system)
    lines = list(dict.fromkeys(line for of_one in by_system.values() for line in of_one))
    width, height = len(lines) * PANEL_WIDTH + 10, TOP + PANEL_HEIGHT + BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
           f'<style>{STYLE}</style>', f'<text x="10" y="20" font-size="15" font-weight="bold">{escape(title)}</text>']
    for number, name in enumerate(names):
        out.append(f'<circle class="d{number}" cx="{width - 120 * (len(names) - number)}" cy="16" r="4"/>')
        out.append(f'<text x="{width - 120 * (len(names) - number) + 9}" y="20">{escape(name)}</text>')
    for i, line in enumerate(lines):
        panel = _Panel(i * PANEL_WIDTH + LEFT, [(number, by_system[name][line]) for number, name in enumerate(names)
                                                if by_system[name].get(line)])
        out += panel.draw(line, axis)
    return '\n'.join(out) + '\n</svg>\n'
