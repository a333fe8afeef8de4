"""tools/evidence/held_out.py: whose statistics normalise, and which images count as grown."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
sys.path += [str(TOOLS), str(TOOLS / 'evidence'), str(TOOLS / 'demo')]
import held_out  # noqa: E402

from mmacmix.backbones import SANACmix  # noqa: E402


def test_statistics_of_the_batch():
    """Of the windows too; the running ones stay as they are, and dropout stays off."""
    torch.manual_seed(0)
    backbone = SANACmix(10, stem_channels=32)
    x = 3 * torch.randn(4, 3, 32, 32) + 1
    backbone(x)
    before = {name: value.clone() for name, value in backbone.state_dict().items() if 'running' in name}
    model = torch.nn.Sequential(backbone, torch.nn.Dropout()).eval()
    with torch.no_grad():
        running = model[0](x)[-1]
        held_out.BatchStatisticsHook().before_test_iter(SimpleNamespace(model=model), 0, data_batch=None)
        own = model[0](x)[-1]
        alone = model[0](x[:2])[-1]
    assert not model[1].training
    assert (own - running).abs().max() > 1e-2 and (own[:2] - alone).abs().max() > 1e-2
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert torch.equal(own, backbone.train()(x)[-1])


def test_grown_maps():
    entries = held_out.LargestEntries()
    maps = torch.ones(6, 2, 3, 3)
    maps[0, 1, 2, 0], maps[1, 0, 0, 0], maps[2, 0, 1, 1], maps[3, 0, 0, 1] = -11, 10, float('nan'), float('inf')
    entries(None, (), (torch.full((6, 1, 1, 1), 1e9), maps[:2]))
    entries(None, (), (maps[2:],))
    assert entries.values == [11, 10, float('inf'), float('inf'), 1, 1]
    assert entries.grown() == 2  # 10 times the lower of the two in the middle
    entries(None, (), (maps[4:],))
    entries(None, (), (maps[4:],))
    assert entries.grown() == 3


def test_weights_that_are_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        held_out.main(['bccd', '--rows', 'san', '--out', str(tmp_path)])
    assert '--out must have the weights of bccd_san-acmix-10_seed0, which run.py makes' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        held_out.main(['bccd', '--rows', 'sand'])
    assert '--rows must be groups' in capsys.readouterr().err
