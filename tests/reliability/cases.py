"""Cases of any input: small backbones of every family, and images of any size, number, type and layout."""

import re
from typing import NamedTuple, Tuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix

#: Type of parameters and images, and that of autocast.
PRECISIONS = {
    'float64': (torch.float64, None),
    'float32': (torch.float32, None),
    'bfloat16': (torch.bfloat16, None),
    'autocast bfloat16': (torch.float32, torch.bfloat16),
}
if torch.__version__ >= (2, 6):  # before, torch could not compute much in it on a CPU
    PRECISIONS.update({'float16': (torch.float16, None), 'autocast float16': (torch.float32, torch.float16)})
LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'transposed', 'one channel')
MODES = ('train', 'eval', 'inference', 'deploy')  # with gradients, in two; without, in two
PATHS = (('attention', 'convolution'), ('attention',), ('convolution',))
#: Families whose norms are those of the batch, in training.
BATCH_NORM = ('resnet', 'san')

# Sides of a pixel, of a patch, of a window, around powers of two, and all others.
SIDES = st.one_of(
    st.sampled_from([1, 2, 3, 4, 5, 7, 8, 28, 31, 32, 33, 63, 64, 65, 96]),
    st.integers(1, 48),
    st.integers(1, 300),
)
OPTIONS = {
    'resnet': dict(
        num_heads=st.sampled_from([4, 8]),
        attn_kernel_size=st.sampled_from([7, 7, 3]),
        norm_cfg=st.sampled_from([dict(type='BN'), dict(type='BN'), dict(type='GN', num_groups=2)]),
        norm_eval=st.booleans(),
        dilations=st.sampled_from([(1, 1, 1, 1), (1, 1, 2, 4)]),
    ),
    'swin': dict(window_size=st.sampled_from([7, 7, 3]), num_heads=st.sampled_from([(1, 2, 2, 4), (1, 2, 8, 8)])),
    'pvt': dict(num_heads=st.sampled_from([(1, 2, 5, 8), (1, 1, 2, 2)])),
    'san': dict(attn_kernel_sizes=st.sampled_from([(3, 3, 3, 3, 3), (3, 7, 5, 3, 3)]), norm_eval=st.booleans()),
}


class Case(NamedTuple):
    family: str
    size: tuple
    batch: int
    precision: str
    layout: str
    mode: str
    with_cp: bool
    paths: tuple
    options: dict
    seed: int

    @property
    def gradients(self) -> bool:
        return self.mode in ('train', 'eval')

    @property
    def by_the_batch(self) -> bool:
        """Whether norms take their moments from the batch."""
        return (
            self.family in BATCH_NORM
            and self.mode == 'train'
            and not self.options['norm_eval']
            and self.options.get('norm_cfg', {}).get('type', 'BN') == 'BN'
        )

    @property
    def attention_only(self) -> bool:
        return self.paths == ('attention',)


def cases(family: str, mode: str):
    """Strategy of the cases of a family in a mode."""
    return st.builds(
        Case,
        st.just(family),
        st.tuples(SIDES, SIDES),
        st.sampled_from([1, 2, 3, 1, 2, 0]),
        st.sampled_from(list(PRECISIONS)),
        st.sampled_from(LAYOUTS),
        st.just(mode),
        st.booleans(),
        st.sampled_from([PATHS[0], *PATHS]),
        st.fixed_dictionaries(OPTIONS[family]),
        st.integers(0, 2**31 - 1),
    )


def build(case: Case) -> nn.Module:
    """The backbone of a case, in its type and mode but not deployed, with random parameters and statistics."""
    options = dict(case.options, paths=case.paths, with_cp=case.with_cp)
    if case.family == 'resnet':
        strides = tuple(1 if dilation > 1 else stride for dilation, stride in zip(options['dilations'], (1, 2, 2, 2)))
        model = ResNetACmix(26, base_channels=8, stem_channels=8, strides=strides, **options)
    elif case.family == 'san':
        model = SANACmix(10, stem_channels=32, **options)
    elif case.family == 'swin':
        arch = dict(embed_dims=8, depths=(2, 1, 2, 1), num_heads=options.pop('num_heads'))
        model = SwinACmix(arch, drop_path_rate=0.0, **options)
    else:
        arch = dict(embed_dims=(8, 16, 40, 64), depths=(1, 1, 2, 1), sr_ratios=(8, 4, 2, 1), mlp_ratios=(4, 4, 2, 2))
        model = PVTACmix(dict(arch, num_heads=options.pop('num_heads')), drop_path_rate=0.0, **options)
    _fill(model)
    memory_format = torch.channels_last if case.layout == 'channels_last' else torch.contiguous_format
    return model.to(PRECISIONS[case.precision][0], memory_format=memory_format).train(case.mode == 'train')


def _fill(model: nn.Module) -> None:
    """Weights that keep the size of maps, factors near 1, biases near 0, and rates that differ."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            # SAN's weights have no softmax: they add up over the window.
            share = parameter.size(0) / parameter.size(1) if name.endswith('conv_w.5.weight') else 1
            nn.init.normal_(parameter, std=(share * parameter[0].numel()) ** -0.5)
        elif name.endswith(('rate1', 'rate2')):
            nn.init.uniform_(parameter, 0.3, 0.7)
        elif name.endswith('weight'):
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)


def image(case: Case) -> Tensor:
    """The images of a case, (batch, 3, *size)."""
    shape = (case.batch, 3, *case.size)
    dtype = PRECISIONS[case.precision][0]
    if case.layout == 'sliced':
        whole = torch.randn(case.batch, 5, 2 * shape[2] + 1, shape[3] + 3)
        return whole.to(dtype)[:, 1:4, 1::2, 2:-1]
    if case.layout == 'transposed':
        return torch.randn(shape[3], shape[2], 3, case.batch).to(dtype).permute(3, 2, 1, 0)
    if case.layout == 'one channel':
        return torch.randn(case.batch, 1, *case.size).to(dtype).expand(shape)
    memory_format = torch.channels_last if case.layout == 'channels_last' else torch.contiguous_format
    return torch.randn(shape).to(dtype).contiguous(memory_format=memory_format)


def shapes(case: Case) -> list:
    """Shapes of the outputs."""
    channels = {
        'resnet': (32, 64, 128, 256),
        'san': (128, 256, 512, 1024),
        'swin': (8, 16, 32, 64),
        'pvt': (8, 16, 40, 64),
    }[case.family]
    strides = (4, 8, 8, 8) if case.options.get('dilations') == (1, 1, 2, 4) else (4, 8, 16, 32)

    def side(length, stride):
        return max(length // stride, 1) if case.family == 'pvt' else -(-length // stride)

    return [(case.batch, c, *(side(n, s) for n in case.size)) for c, s in zip(channels, strides)]


#: Where the gradient is 0 by mathematics: family, parameter, which of how many equal parts of it, and when.
ZERO_GRADIENTS = (
    # A summand of all logits of a window: the softmax takes it out. Keys have another use in the convolution path.
    ('resnet', r'conv2\.conv_p\.bias', (0, 1), lambda case: True),
    ('resnet', r'conv2\.conv2\.bias', (0, 1), lambda case: case.attention_only),
    ('swin', r'attn\.qkv\.bias', (1, 3), lambda case: case.attention_only),
    ('pvt', r'attn\.kv\.bias', (0, 2), lambda case: case.attention_only),
    # A summand of all pixels of a channel: norms by the batch take it out. The weights of a window have the sum 1; the
    # convolution path has a border of zeros.
    ('resnet', r'conv2\.conv3\.bias', (0, 1), lambda case: case.attention_only and case.by_the_batch),
    ('san', r'\d\.conv\.bias', (0, 1), lambda case: case.by_the_batch),
    ('san', r'sam\.conv[12]\.bias', (0, 1), lambda case: case.attention_only and case.by_the_batch),
)


def split_zero(case: Case, name: str, gradient: Tensor) -> Tuple[Tensor, Tensor]:
    """The part of a parameter's gradient that is 0 by mathematics, empty for most, and the rest."""
    for family, pattern, (part, parts), when in ZERO_GRADIENTS:
        if family == case.family and re.search(f'{pattern}$', name) and when(case):
            chunks = list(gradient.chunk(parts))
            return chunks.pop(part), torch.cat([gradient[:0], *chunks])
    return gradient[:0], gradient
