"""How sides are called and drawn, and which are put in relation."""

from typing import Dict, List, Tuple

MODELS = {
    'resnet-acmix-26': 'ResNet-ACmix-26',
    'resnet-acmix-50': 'ResNet-ACmix-50',
    'resnet-50': 'ResNet-50',
    'swin-acmix-t': 'Swin-ACmix-T',
    'swin-t': 'Swin-T',
    'pvt-acmix-t': 'PVT-ACmix-T',
    'pvt-t': 'PVT-T',
    'san-acmix-10': 'SAN-ACmix-10',
    'san-10-acmix-attention': 'SAN-10 (attention only)',
}
VARIANTS = {
    'official': 'official order',
    'deploy': 'deploy form',
    'norm_eval': 'norm_eval=True',
    'channels_last': 'channels_last',
    'with_cp': 'with_cp=True',
}
OPERATORS = {
    'auto': 'mmacmix',
    'triton': "'triton'",
    'tiled': "'tiled'",
    'reference': "'reference'",
    'official': 'official order',
    'flex': 'FlexAttention',
}
#: Columns of one table: the sides it may hold, by its title.
TABLES = {
    'operator': {'': tuple(OPERATORS)},
    'backbone': {
        'ResNet': ('resnet-acmix-50', 'resnet-acmix-26', 'resnet-50'),
        'Swin': ('swin-acmix-t', 'swin-t'),
        'PVT': ('pvt-acmix-t', 'pvt-t'),
        'SAN': ('san-acmix-10', 'san-10-acmix-attention'),
    },
}
#: Ratios behind the columns, where both sides are there.
RATIOS = {
    'operator': (('official', 'auto'), ('flex', 'auto')),
    'backbone': (
        ('resnet-acmix-50:official', 'resnet-acmix-50'),
        ('resnet-acmix-50', 'resnet-50'),
        ('resnet-acmix-50:norm_eval', 'resnet-50:norm_eval'),
        ('resnet-acmix-50:deploy', 'resnet-50'),
        ('swin-acmix-t', 'swin-t'),
        ('swin-acmix-t:deploy', 'swin-t'),
        ('pvt-acmix-t', 'pvt-t'),
        ('san-acmix-10', 'san-10-acmix-attention'),
    ),
}
#: Colour of a model, or of an operator; variants differ in their line.
COLORS = {
    'resnet-acmix-50': '#0b5fa5',
    'resnet-acmix-26': '#4fb0e0',
    'resnet-50': '#555555',
    'swin-acmix-t': '#c2410c',
    'swin-t': '#d9a21b',
    'pvt-acmix-t': '#3a7d44',
    'pvt-t': '#9bc53d',
    'san-acmix-10': '#7b2d8b',
    'san-10-acmix-attention': '#c58bd1',
    'auto': '#0b5fa5',
    'triton': '#4fb0e0',
    'tiled': '#3a9d6e',
    'reference': '#999999',
    'official': '#c0267e',
    'flex': '#d9a21b',
}
LINES = {
    '': '-',
    'official': '--',
    'channels_last': ':',
    'deploy': '-.',
    'norm_eval': (0, (5, 1, 1, 1, 1, 1)),
    'with_cp': (0, (1, 4)),
}


def label(side: str) -> str:
    """What people read.

    Example:
        >>> label('resnet-50:channels_last')
        'ResNet-50, channels_last'
    """
    name, *variants = side.split(':')
    names = {**MODELS, **OPERATORS}
    return ', '.join([names.get(name, name), *(VARIANTS.get(variant, variant) for variant in variants)])


def style(side: str) -> Dict[str, str]:
    """Colour, line and marker for matplotlib."""
    name, *variants = side.split(':')
    variant = variants[0] if variants else ''
    marker = {'': 'o', 'official': 's', 'channels_last': '^', 'deploy': 'v'}.get(variant, 'x')
    return dict(color=COLORS.get(name, '#000000'), linestyle=LINES.get(variant, '-'), marker=marker)


def in_order(benchmark: str, sides: set) -> List[str]:
    """The sides as tables and legends list them; a model's variants follow it."""
    names = [name for members in TABLES[benchmark].values() for name in members]

    def place(side: str) -> Tuple[int, str]:
        name = side.split(':')[0]
        return (names.index(name) if name in names else len(names), side)

    return sorted(sides, key=place)
