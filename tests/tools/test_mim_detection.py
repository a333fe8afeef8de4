"""mim trains, tests and resumes a detector, by the config's name and through mmdet's own tools."""
import os
import pickle
import re

import pytest
import torch

NAME = 'retinanet_resnet-acmix-26_fpn_1x_coco.py'


@pytest.fixture(scope='module')
def options(coco):
    """The overrides that fit the packaged config to two images of 64x64 and two classes."""
    # After two iterations all scores are near zero: without a threshold there are predictions.
    result = ['--cfg-options', 'model.bbox_head.num_classes=2', 'model.test_cfg.score_thr=0.',
              'train_dataloader.batch_size=1', 'train_cfg.max_epochs=1',
              'train_dataloader.dataset.pipeline.2.scale=(64,64)',
              'default_hooks.logger.interval=1']
    for split in ('train', 'val', 'test'):
        loader = f'{split}_dataloader'
        result += [f'{loader}.dataset.data_root={coco}', f'{loader}.num_workers=0',
                   f'{loader}.persistent_workers=False',
                   f'{loader}.dataset.metainfo.classes=dark,light']
    for split in ('val', 'test'):
        result += [f'{split}_dataloader.dataset.pipeline.1.scale=(64,64)',
                   f'{split}_evaluator.ann_file={coco}/annotations/instances_val2017.json']
    return result


@pytest.fixture(scope='module')
def trained(mim, options, tmp_path_factory):
    """The folder in which `mim train mmacmix` has written work/epoch_1.pth."""
    folder = tmp_path_factory.mktemp('detection')
    done = mim('train', 'mmacmix', NAME, '--work-dir', 'work', *options, cwd=folder)
    assert done.code == 0, done.output
    assert 'Training finished successfully' in done.output
    return folder


@pytest.fixture(scope='module')
def config(coco, site, trained):
    """A config file of a user, which inherits the packaged one: what mmdet's tools are given."""
    base = site / 'mmacmix' / '.mim' / 'configs' / 'retinanet' / NAME
    path = trained / 'own_retinanet.py'
    path.write_text(f"""
_base_ = '{base}'
metainfo = dict(classes=('dark', 'light'))
model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(score_thr=0.))
loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
dataset = dict(data_root='{coco}', metainfo=metainfo)
train = _base_.train_pipeline
test = _base_.test_pipeline
train[2]['scale'] = test[1]['scale'] = (64, 64)
train_dataloader = dict(dataset=dict(pipeline=train, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test, **dataset), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{coco}/annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
""")
    return path


def test_training_writes_a_checkpoint_and_a_config(trained):
    assert (trained / 'work' / 'epoch_1.pth').exists()
    assert (trained / 'work' / NAME).exists()


def test_of_the_checkpoint_just_trained(mim, trained, options):
    done = mim('test', 'mmacmix', NAME, '--checkpoint', 'work/epoch_1.pth', '--work-dir', 'tested',
               '--out', 'predictions.pkl', '--show-dir', 'pictures', *options, cwd=trained)
    assert done.code == 0, done.output
    assert re.search(r'coco/bbox_mAP_50: -?\d', done.output)
    predictions = pickle.loads((trained / 'predictions.pkl').read_bytes())
    assert sorted(item['img_id'] for item in predictions) == [0, 1]
    assert all('pred_instances' in item for item in predictions)
    assert sorted(os.listdir(trained / 'pictures')) == ['0.jpg', '1.jpg']


def test_run_resumes_the_checkpoint_just_trained(mim, trained, config):
    done = mim('run', 'mmacmix', 'train', config, '--work-dir', 'resumed', '--resume',
               'work/epoch_1.pth', cwd=trained)
    assert done.code == 0, done.output
    assert 'resumed epoch: 1' in done.output
    assert 'Epoch(train) [1]' not in done.output
    assert (trained / 'resumed' / 'epoch_2.pth').exists()


def test_run_tests_with_augmentation(mim, trained, config):
    done = mim('run', 'mmacmix', 'test', config, 'work/epoch_1.pth', '--tta', '--cfg-options',
               'tta_pipeline.1.transforms.0.0.scale=(64,64)',
               'tta_pipeline.1.transforms.0.1.scale=(32,32)',
               'tta_pipeline.1.transforms.0.2.scale=(96,96)', cwd=trained)
    assert done.code == 0, done.output
    assert 'coco/bbox_mAP_50' in done.output


def test_tools_of_mmdet_train_resume_and_test(mim, trained, config):
    done = mim('train', 'mmdet', config, '--work-dir', 'mmdet', '--resume', 'work/epoch_1.pth',
               cwd=trained)
    assert done.code == 0, done.output
    assert 'resumed epoch: 1' in done.output
    done = mim('test', 'mmdet', config, '--checkpoint', 'mmdet/epoch_2.pth', cwd=trained)
    assert done.code == 0, done.output
    assert 'coco/bbox_mAP_50' in done.output


class Crafted:
    """Unpickled without care, it runs a shell command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def test_a_crafted_checkpoint_stays_refused(mim, trained, config):
    if torch.__version__ < torch.torch_version.TorchVersion('2.6'):
        pytest.skip('torch.load is safe by default since 2.6')
    trace = trained / 'executed'
    state = torch.load(trained / 'work' / 'epoch_1.pth', weights_only=False)
    state['message_hub'] = Crafted(trace)
    torch.save(state, trained / 'crafted.pth')
    done = mim('test', 'mmacmix', config, '--checkpoint', 'crafted.pth', cwd=trained)
    assert done.code != 0
    assert re.search(r'cannot read crafted.pth as a checkpoint: it refers to (posix|nt)\.system', done.output)
    assert not trace.exists()
