"""The data pipelines of every config run on a small generated data set in its layout."""
import copy
import json

import mmcv
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from mmengine.runner import Runner

COUNT, HEIGHT, WIDTH = 4, 48, 64
DOG = CocoDataset.METAINFO['classes'].index('dog')


def write_coco(root, rng):
    images, annotations = [], []
    for i in range(COUNT):
        images.append(dict(id=i, file_name=f'{i}.jpg', height=HEIGHT, width=WIDTH))
        x, y, w, h = 8 + i, 6, 36, 34
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(dict(
            id=i + 1, image_id=i, category_id=DOG + 1, bbox=[x, y, w, h], area=w * h, iscrowd=0,
            segmentation=polygon))
    names = CocoDataset.METAINFO['classes']
    truth = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)])
    for split in ('train2017', 'val2017'):
        for i in range(COUNT):
            mmcv.imwrite(rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8),
                         str(root / split / f'{i}.jpg'))
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(truth))


def write_ade20k(root, rng):
    for split in ('training', 'validation'):
        for i in range(COUNT):
            mmcv.imwrite(rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8),
                         str(root / 'images' / split / f'{i}.jpg'))
            mmcv.imwrite(rng.integers(151, size=(HEIGHT, WIDTH), dtype=np.uint8),
                         str(root / 'annotations' / split / f'{i}.png'))


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp('data')
    write_coco(root / 'coco', rng)
    write_ade20k(root / 'ade', rng)
    return dict(mmdet=f'{root}/coco/', mmseg=f'{root}/ade/')


@pytest.fixture
def data_cfg(data_path, cfg, roots):
    """The config on the generated data, loading in this process."""
    init_default_scope(cfg.default_scope)
    root = roots[cfg.default_scope]
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        if split != 'train' and 'ann_file' in cfg[f'{split}_evaluator']:
            evaluator = cfg[f'{split}_evaluator']
            evaluator.ann_file = evaluator.ann_file.replace(loader.dataset.data_root, root)
        loader.dataset.data_root = root
    return cfg


def first_batch(cfg, split):
    loader = Runner.build_dataloader(copy.deepcopy(cfg[f'{split}_dataloader']), seed=0)
    return len(loader.dataset), next(iter(loader))


def test_train(data_cfg):
    length, batch = first_batch(data_cfg, 'train')
    assert length == COUNT
    images = data_cfg.train_dataloader.batch_size
    assert len(batch['inputs']) == images
    data = MODELS.build(data_cfg.model.data_preprocessor)(batch, training=True)
    assert data['inputs'].shape[:2] == (images, 3)
    if data_cfg.default_scope == 'mmseg':
        assert data['inputs'].shape[2:] == (512, 512)
        for sample in data['data_samples']:
            labels = sample.gt_sem_seg.data.unique()
            assert set(labels.tolist()) <= {*range(150), 255}
            assert 255 in labels and len(labels) > 10
        return
    height, width = data['inputs'].shape[2:]
    if 'ms-crop' in data_cfg.filename:  # many sizes, and the dog may be cropped away
        assert height % 32 == width % 32 == 0 and 480 <= min(height, width) <= 832
        return
    # 48 x 64 fits into 1333 x 800 at 800 x 1067, and 1067 is padded to a multiple of 32
    assert (height, width) == (800, 1088)
    for sample in data['data_samples']:
        truth = sample.gt_instances
        assert truth.labels.tolist() == [DOG]
        assert ('masks' in truth) == ('roi_head' in data_cfg.model)
        if 'masks' in truth:
            assert truth.masks.masks.shape == (1, height, width)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_evaluation(data_cfg, split):
    length, batch = first_batch(data_cfg, split)
    assert length == COUNT
    METRICS.build(data_cfg[f'{split}_evaluator'])
    inputs, = batch['inputs']
    sample, = batch['data_samples']
    assert sample.ori_shape == (HEIGHT, WIDTH)
    if data_cfg.default_scope == 'mmdet':
        assert inputs.shape == (3, 800, 1067)
        assert sample.gt_instances.bboxes.tensor.max() <= WIDTH
        assert sample.img_id == 0
        return
    # 48 x 64 fits into 2048 x 512 at 512 x 683
    aligned = data_cfg.model.decode_head.type == 'FPNHead'
    assert inputs.shape == (3, 512, 704 if aligned else 683)
    assert sample.gt_sem_seg.shape == (HEIGHT, WIDTH)
    assert 255 in sample.gt_sem_seg.data


def test_test_time_augmentation(data_cfg):
    if 'tta_model' not in data_cfg:
        pytest.skip('mmdet does not merge the masks of augmented images')
    dataset = copy.deepcopy(data_cfg.test_dataloader.dataset)
    dataset.pipeline = data_cfg.tta_pipeline
    views = DATASETS.build(dataset)[0]
    steps = data_cfg.tta_pipeline[-1].transforms
    count = len(steps[0]) * 2
    assert count >= 6
    assert len(views['inputs']) == len(views['data_samples']) == count
    assert sum(sample.flip for sample in views['data_samples']) == count // 2
    for image, sample in zip(views['inputs'], views['data_samples']):
        assert image.dtype == torch.uint8
        assert tuple(image.shape[1:]) == tuple(sample.img_shape)
        if [dict(type='ResizeToMultiple', size_divisor=32)] in steps:
            assert image.shape[1] % 32 == image.shape[2] % 32 == 0
