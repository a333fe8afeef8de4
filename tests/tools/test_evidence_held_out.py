"""tools/evidence/held_out.py: whose statistics normalise, and which images count as grown."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
sys.path += [str(TOOLS), str(TOOLS / 'evidence'), str(TOOLS / 'demo')]
import held_out  # noqa: E402
from rows import RESNET  # noqa: E402

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
    maps = torch.ones(8, 2, 3, 3)
    maps[0, 1, 2, 0], maps[1, 0, 0, 0], maps[2, 0, 1, 1], maps[3, 0, 0, 1] = -11, 10, float('nan'), float('inf')
    entries(None, (), (torch.full((8, 1, 1, 1), 1e9), maps[:2]))
    entries(None, (), (maps[2:],))
    assert entries.values == [11, 10, float('inf'), float('inf'), 1, 1, 1, 1]
    assert entries.grown() == 3
    for _ in range(4):
        entries(None, (), (maps[2:4],))
    assert entries.grown() == 10  # where most have grown the yardstick grows, but what is not finite counts
    entries.values = entries.values[2:4]
    assert entries.grown() == 2


@pytest.mark.parametrize('task', ['bccd', 'camvid'])
def test_ways(task, monkeypatch, tmp_path, capsys):
    """Each way changes what it says and nothing else; the table has a figure of each."""
    seen = []

    class Runner:
        def __init__(self, cfg):
            self.cfg, self.hooks = cfg, []
            self.model = SimpleNamespace(backbone=torch.nn.Identity())

        from_cfg = classmethod(lambda cls, cfg: cls(cfg))

        def register_hook(self, hook):
            self.hooks.append(type(hook).__name__)

        def test(self):
            seen.append(self)
            for value in (1., 1., 1., 50. if len(seen) == 1 else 1.):
                self.model.backbone((torch.full((1, 1, 1, 1), value),))
            return {'coco/bbox_mAP': 0.1 * len(seen), 'mIoU': 10. * len(seen)}

    monkeypatch.setattr(held_out, 'Runner', Runner)
    monkeypatch.setattr(held_out, 'finished_fingerprint', lambda folder: held_out.digest(
        held_out.Run(task, RESNET, 0).config()))
    weights = tmp_path / f'{task}_{RESNET}_seed0' / 'weights.pth'
    weights.parent.mkdir()
    weights.touch()
    held_out.main([task, '--rows', RESNET, '--out', str(tmp_path), '--data', str(tmp_path)])
    assert [runner.hooks for runner in seen] == [[], ['BatchStatisticsHook'], []][:len(seen)]
    assert [runner.cfg.test_dataloader.batch_size for runner in seen] == [1, 8, 1][:len(seen)]
    assert all(runner.cfg.load_from == str(weights) for runner in seen)
    modes = [runner.cfg.model.test_cfg.get('mode') for runner in seen]
    assert modes == ([None, None] if task == 'bccd' else ['whole', 'whole', 'slide'])
    figures = '10.0 | 20.0' if task == 'bccd' else '10.0 | 20.0 | 30.0'
    assert f'| ResNet-ACmix-26, seed 0 | {figures} | 1 of 4 |' in capsys.readouterr().out
    if task == 'camvid':
        assert seen[2].cfg.model.test_cfg.crop_size == (256, 256)
        assert seen[2].cfg.model.test_cfg.stride == (128, 128)


def test_weights_that_are_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit):
        held_out.main(['bccd', '--rows', 'san', '--out', str(tmp_path)])
    assert '--out must have the weights of bccd_san-acmix-10_seed0, which run.py makes' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        held_out.main(['bccd', '--rows', 'sand'])
    assert '--rows must be groups' in capsys.readouterr().err
