"""Whole backbones against the released code: converted weights give the released outputs."""

import pytest
import torch

from mmacmix.backbones import ResNetACmix, SwinACmix
from mmacmix.checkpoints import convert

BUILD = {
    'resnet_acmix_26': lambda: ResNetACmix(26),
    'swin_acmix_tiny': lambda: SwinACmix('tiny'),
}


@pytest.mark.parametrize('index', [0, 1])
def test_released_weights_give_released_outputs(golden_models, relative_error, index):
    golden, case = golden_models, golden_models.cases[index]
    model = BUILD[case['name']]().eval()
    state = convert(golden.state_dict(case['state_dict']), 'acmix')
    wrong = model.load_state_dict(state, strict=False)
    assert wrong.unexpected_keys == []
    assert all(key.endswith('num_batches_tracked') for key in wrong.missing_keys)
    with torch.no_grad():
        outs = model(torch.from_numpy(golden.array('image', case['input'])))
    for stage, out in enumerate(outs):
        assert list(out.shape) == case['stage_shapes'][stage]
        _, channels, height, width = out.shape
        grid = out[:, :: max(1, channels // 16), :: max(1, height // 7), :: max(1, width // 7)]
        assert relative_error(grid, golden.arrays[f'{case["name"]}/stage{stage}']) < 1e-4
        assert out.abs().mean().item() == pytest.approx(case['stage_mean_abs'][stage], rel=1e-4)
