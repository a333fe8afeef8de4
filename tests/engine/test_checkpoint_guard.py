"""A checkpoint that does not fit stops the run; what mmengine saves itself is loaded on any torch."""

import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmacmix.engine import SetupError
from mmacmix.safe_globals import getattr_of_few


@MODELS.register_module()
class GuardedModel(BaseModel):
    def __init__(self, width=4, classes=3):
        super().__init__()
        self.backbone = torch.nn.Linear(2, width)
        self.head = torch.nn.Linear(width, classes)

    def forward(self, *inputs, mode):
        x = torch.stack(inputs)
        loss = self.head(self.backbone(x)).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss.item()]


@DATASETS.register_module()
class TwoNumbers(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.full((2,), float(i))


def runner(tmp_path, train=True, max_epochs=2, load_from=None, resume=False, **model):
    loader = dict(
        dataset=dict(type='TwoNumbers'), batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler')
    )
    testing = dict(
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=dict(type='DumpResults', out_file_path=str(tmp_path / 'results.pkl')),
    )
    training = dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
    )
    cfg = Config(
        dict(
            model=dict(dict(type='GuardedModel'), **model),
            work_dir=str(tmp_path),
            custom_hooks=[dict(type='mmacmix.CheckpointGuardHook')],
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}_{torch.rand(1).item()}',
            load_from=load_from,
            resume=resume,
            **(training if train else testing),
        )
    )
    return Runner.from_cfg(cfg)


@pytest.fixture
def trained(tmp_path):
    runner(tmp_path).train()
    return str(tmp_path / 'epoch_2.pth')


def test_own_checkpoints_load_and_resume(tmp_path, trained):
    runner(tmp_path, train=False, load_from=trained).test()
    again = runner(tmp_path, max_epochs=3, load_from=trained, resume=True)
    again.train()
    assert again.epoch == 3


def test_testing_needs_everything(tmp_path, trained):
    message = r'epoch_2.pth does not fit GuardedModel of this config: 2 of another shape: head'
    with pytest.raises(ValueError, match=message):
        runner(tmp_path, train=False, load_from=trained, classes=5).test()


def test_fine_tuning_needs_the_backbone_only(tmp_path, trained):
    runner(tmp_path / 'fine', load_from=trained, classes=5).train()
    with pytest.raises(ValueError, match='of another shape: backbone.weight 4x2, here 6x2'):
        runner(tmp_path / 'other', load_from=trained, width=6).train()


class Outputs(torch.nn.Linear):
    """A backbone with norms for its outputs, as SwinACmix has them."""

    optional_keys = r'norm[0-3]\.(weight|bias)$'

    def __init__(self, out_indices):
        super().__init__(2, 4)
        for i in out_indices:
            self.add_module(f'norm{i}', torch.nn.LayerNorm(4))


@MODELS.register_module()
class OutputsModel(GuardedModel):
    def __init__(self, out_indices):
        super().__init__()
        self.backbone = Outputs(out_indices)


def test_fine_tuning_with_other_outputs(tmp_path):
    """From a detector that uses stages 1 to 3 to one that uses them all, and the other way."""
    for before, after in (((1, 2, 3), (0, 1, 2, 3)), ((0, 1, 2, 3), (1, 2, 3))):
        first, path = OutputsModel(before), tmp_path / 'a.pth'
        torch.save(dict(state_dict=first.state_dict(), meta={}), path)
        options = dict(type='OutputsModel', out_indices=after)
        runner(tmp_path, load_from=str(path), **options).train()
        with pytest.raises(SetupError, match='2 (missing|left over): backbone.norm0'):
            runner(tmp_path, train=False, load_from=str(path), **options).test()
        state = first.state_dict()
        del state['backbone.norm2.bias']
        torch.save(dict(state_dict=state, meta={}), path)
        with pytest.raises(SetupError, match='1 missing: backbone.norm2.bias'):
            runner(tmp_path, load_from=str(path), **options).train()


def test_resuming_needs_everything(tmp_path, trained):
    with pytest.raises(ValueError, match='of another shape: head.weight 3x4, here 5x4'):
        runner(tmp_path / 'resume', load_from=trained, resume=True, classes=5).train()


def test_test_time_augmentation_wraps_the_model(tmp_path, trained):
    class Augmented(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    testing = runner(tmp_path, train=False)
    testing.model = Augmented(module=testing.model)
    testing.load_checkpoint(trained)
    wrong = runner(tmp_path, train=False, classes=5)
    wrong.model = Augmented(module=wrong.model)
    with pytest.raises(ValueError, match='of another shape: head.weight 3x4, here 5x4'):
        wrong.load_checkpoint(trained)


def test_checkpoint_without_the_backbone(tmp_path):
    torch.save(dict(state_dict={'head.weight': torch.zeros(3, 4)}, meta={}), tmp_path / 'part.pth')
    with pytest.raises(ValueError, match='2 missing: backbone.weight, backbone.bias'):
        runner(tmp_path, load_from=str(tmp_path / 'part.pth')).train()


class Crafted:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('via', ['open', 'getattr'])
def test_crafted_checkpoints_stay_refused(tmp_path, via):
    mark = tmp_path / 'executed'
    call = Crafted(open, str(mark), 'w') if via == 'open' else Crafted(getattr, HistoryBuffer, '__init__')
    torch.save(dict(state_dict={}, meta={}, extra=call), tmp_path / 'crafted.pth')
    with pytest.raises(ValueError, match='crafted.pth as a checkpoint: it refers to .*(open|getattr)'):
        runner(tmp_path, train=False, load_from=str(tmp_path / 'crafted.pth')).test()
    assert not mark.exists()


@pytest.mark.parametrize(
    'owner, name', [(HistoryBuffer, '__globals__'), (pickle, 'loads'), (object, 'mean'), (HistoryBuffer, 'update')]
)
def test_getattr_resolves_statistics_only(owner, name):
    with pytest.raises(pickle.UnpicklingError, match='may only refer to the statistics'):
        getattr_of_few(owner, name)
    assert getattr_of_few(HistoryBuffer, 'mean') is HistoryBuffer.mean
