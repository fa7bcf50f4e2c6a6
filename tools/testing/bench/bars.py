# SPDX-License-Identifier: GPL-2.0
"""Bars with their spread, as SVG."""

import html

LABEL, WIDTH, ROW, TOP, RIGHT = 190, 420, 22, 40, 70
COLOURS = {"DRR": "#2f6f4f", "RAM disk": "#c9b458"}


def chart(title, rows):
    """A bar for each row of label, value, and the lowest and highest that was measured."""
    scale = WIDTH / max(high for _, _, _, high in rows)
    height = TOP + ROW * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + RIGHT}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-size="14" font-weight="bold">{html.escape(title)}</text>',
    ]
    for number, (label, value, low, high) in enumerate(rows):
        y = TOP + ROW * number
        colour = next((colour for kind, colour in COLOURS.items() if kind in label), "#8a8f98")
        left, right = LABEL + low * scale, LABEL + high * scale
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{html.escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y + 3}" width="{value * scale:.1f}" height="{ROW - 6}" '
            f'fill="{colour}"/>',
            f'<path d="M{left:.1f} {y + ROW / 2}H{right:.1f}M{left:.1f} {y + 7}v8M{right:.1f} '
            f'{y + 7}v8" stroke="black" fill="none"/>',
            f'<text x="{right + 6:.1f}" y="{y + 15}">{value:.{0 if value >= 50 else 1}f}</text>',
        ]
    return "\n".join(parts + ["</svg>", ""])
