"""mim trains, tests and resumes a segmenter, by the config's name and through mmseg's own tools."""
import re

import cv2
import pytest

NAME = 'fpn_resnet-acmix-26_8xb4-40k_ade20k-512x512.py'


@pytest.fixture(scope='module')
def options(ade):
    """The overrides that fit the packaged config to images of 64x64 with two classes."""
    classes = 'metainfo.classes=low,high'
    result = ['--cfg-options', 'model.decode_head.num_classes=2',
              'model.data_preprocessor.size=(64,64)', 'train_cfg.max_iters=2',
              'train_cfg.val_interval=2', 'train_dataloader.batch_size=2',
              'train_dataloader.dataset.pipeline.2.scale=(64,64)',
              'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
              'default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=2']
    for split in ('train', 'val', 'test'):
        loader = f'{split}_dataloader'
        result += [f'{loader}.dataset.data_root={ade}', f'{loader}.num_workers=0',
                   f'{loader}.persistent_workers=False', f'{loader}.dataset.{classes}',
                   f'{loader}.dataset.metainfo.palette=[[9,9,9],[200,0,0]]',
                   # ADE20KDataset takes no classes but its own.
                   f'{loader}.dataset.type=BaseSegDataset']
    for split in ('val', 'test'):
        result.append(f'{split}_dataloader.dataset.pipeline.1.scale=(64,64)')
    return result


@pytest.fixture(scope='module')
def trained(mim, options, tmp_path_factory):
    """The folder in which `mim train mmacmix` has written work/iter_2.pth."""
    folder = tmp_path_factory.mktemp('segmentation')
    done = mim('train', 'mmacmix', NAME, '--work-dir', 'work', *options, cwd=folder)
    assert done.code == 0, done.output
    return folder


@pytest.fixture(scope='module')
def config(ade, site, trained):
    """A config file of a user, which inherits the packaged one: what mmseg's tools are given."""
    base = site / 'mmacmix' / '.mim' / 'configs' / 'sem_fpn' / NAME
    path = trained / 'own_fpn.py'
    path.write_text(f"""
_base_ = '{base}'
metainfo = dict(classes=('low', 'high'), palette=[[9, 9, 9], [200, 0, 0]])
model = dict(data_preprocessor=dict(size=(64, 64)), decode_head=dict(num_classes=2))
loader = dict(num_workers=0, persistent_workers=False)
dataset = dict(type='BaseSegDataset', data_root='{ade}', metainfo=metainfo)
train = _base_.train_pipeline
test = _base_.test_pipeline
train[2]['scale'] = train[3]['crop_size'] = test[1]['scale'] = (64, 64)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test, **dataset), **loader)
test_dataloader = val_dataloader
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(size, size), keep_ratio=True) for size in (64, 96)],
        [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0., 1.)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])]
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
""")
    return path


def test_training_writes_a_checkpoint(trained):
    assert (trained / 'work' / 'iter_2.pth').exists()


def test_of_the_checkpoint_just_trained(mim, trained, options):
    done = mim('test', 'mmacmix', NAME, '--checkpoint', 'work/iter_2.pth', '--work-dir', 'tested',
               '--out', 'labels', '--show-dir', 'pictures', *options, cwd=trained)
    assert done.code == 0, done.output
    assert re.search(r'mIoU: +\d', done.output)
    for name in ('0.png', '1.png'):
        labels = cv2.imread(str(trained / 'labels' / name), cv2.IMREAD_UNCHANGED)
        # As in ADE20K's files: class 0 is written as label 1, 0 is kept for what is no class.
        assert labels.shape == (64, 64) and labels.min() >= 1 and labels.max() <= 2
    assert len(list((trained / 'pictures').rglob('*.png'))) == 2


def test_run_tests_with_augmentation(mim, trained, config):
    done = mim('run', 'mmacmix', 'test', config, 'work/iter_2.pth', '--tta', '--out', 'out.pkl',
               cwd=trained)
    assert done.code == 0, done.output
    assert 'mIoU' in done.output
    assert (trained / 'out.pkl').stat().st_size > 0


def test_tools_of_mmseg_resume_and_test(mim, trained, config):
    done = mim('train', 'mmseg', config, '--work-dir', 'work', '--resume', cwd=trained)
    assert done.code == 0, done.output
    assert 'resumed epoch: 0, iter: 2' in done.output
    done = mim('test', 'mmseg', config, '--checkpoint', 'work/iter_3.pth', cwd=trained)
    assert done.code == 0, done.output
    assert re.search(r'mIoU: +\d', done.output)
