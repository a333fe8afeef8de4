"""Every config builds in its host, trains a step and predicts: full width, small inputs."""
import copy

import mmdet.datasets  # noqa: F401  (fills the registry)
import mmseg.datasets  # noqa: F401
import pytest
import torch
import yaml
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS as MMSEG_DATASETS
from mmseg.structures import SegDataSample
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from mmacmix.engine.data_paths import datasets
from mmacmix.engine.model_checks import ChannelWatch, check_classes, check_frozen, check_labels

HOSTS = dict(mmdet=MMDET_DATASETS, mmseg=MMSEG_DATASETS)
SHAPES = [[3, 64, 96], [3, 64, 80]]
CROP = (64, 64)
REGIONS = 12


def head_of(cfg):
    """The part of the model that knows the number of classes."""
    model = cfg.model
    if 'roi_head' in model:
        head = model.roi_head.bbox_head
        return head[-1] if isinstance(head, list) else head
    return model.bbox_head if 'bbox_head' in model else model.decode_head


@pytest.fixture(scope='module')
def small_cfg(config_path):
    cfg = Config.fromfile(config_path)
    init_default_scope(cfg.default_scope)
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = CROP
    else:
        # an untrained detector is sure of nothing: without this it would predict no box
        test_cfg = cfg.model.test_cfg
        test_cfg.get('rcnn', test_cfg).score_thr = 0.
    if 'roi_head' in cfg.model:
        # heads on a few regions do what they do on hundreds
        train_cfg = cfg.model.train_cfg
        train_cfg.rpn_proposal.max_per_img = test_cfg.rpn.max_per_img = REGIONS
        test_cfg.rcnn.max_per_img = REGIONS
        for stage in train_cfg.rcnn if isinstance(train_cfg.rcnn, list) else [train_cfg.rcnn]:
            stage.sampler.num = REGIONS
    return cfg


@pytest.fixture(scope='module')
def model(small_cfg):
    torch.manual_seed(0)
    model = MODELS.build(small_cfg.model)
    model.init_weights()
    return model


def seg_sample(shape, classes, ori_shape=None):
    sample = SegDataSample(metainfo=dict(
        img_shape=shape, pad_shape=shape, ori_shape=ori_shape or shape, padding_size=[0] * 4))
    sample.gt_sem_seg = PixelData(data=torch.randint(classes, (1, *shape)))
    return sample


def random_batch(cfg):
    classes = head_of(cfg).num_classes
    if cfg.default_scope == 'mmdet':
        return demo_mm_inputs(
            2, SHAPES, num_items=[3, 2], num_classes=classes, with_mask='roi_head' in cfg.model)
    return dict(
        inputs=[torch.randint(256, (3, *CROP), dtype=torch.uint8) for _ in range(2)],
        data_samples=[seg_sample(CROP, classes) for _ in range(2)])


def test_rates_are_not_decayed(small_cfg, model):
    wrapper_cfg = copy.deepcopy(small_cfg.optim_wrapper)
    if wrapper_cfg.type == 'AmpOptimWrapper':  # which wants a GPU
        wrapper_cfg.update(type='OptimWrapper')
        wrapper_cfg.pop('loss_scale', None)
    wrapper = build_optim_wrapper(model, wrapper_cfg)
    decay = {id(p): g['weight_decay'] for g in wrapper.param_groups for p in g['params']}
    base = small_cfg.optim_wrapper.optimizer.weight_decay
    assert base > 0
    rates = 0
    for name, param in model.named_parameters():
        leaf = name.rsplit('.', 1)[-1]
        if leaf in ('rate1', 'rate2'):
            rates += 1
            assert decay[id(param)] == 0, name
        elif leaf == 'relative_position_bias_table' or 'norm' in name:
            assert decay[id(param)] == 0, name
        elif param.requires_grad:
            assert decay[id(param)] == base, name
    assert rates >= 8


def test_fits_its_data(small_cfg, model):
    """What StartCheckHook asks of it."""
    check_frozen(model, loaded=False)
    for split in ('train', 'val', 'test'):
        for setting, dataset in datasets(small_cfg, split):
            classes = dataset.get('metainfo', HOSTS[small_cfg.default_scope].get(dataset.type).METAINFO)['classes']
            check_classes(model, classes, setting)
            with pytest.raises(ValueError, match='heads must have the'):
                check_classes(model, classes[1:], setting)


def test_documented_costs_are_counted(config_path, small_cfg, model, complexity):
    if config_path.parent.name == 'demo':
        pytest.skip('the demo has no table')
    count = round(sum(p.numel() for p in model.parameters()) / 1e6, 1)
    meta = yaml.safe_load((config_path.parent / 'metafile.yml').read_text())
    entry, = [m for m in meta['Models'] if m['Name'] == config_path.stem]
    assert entry['Metadata']['Parameters (M)'] == count
    readme = (config_path.parent / 'README.md').read_text()
    row, = [line for line in readme.splitlines() if f'({config_path.name})' in line]
    shape = (512, 512) if small_cfg.default_scope == 'mmseg' else (800, 1344)
    with torch.device('meta'):
        backbone = MODELS.build(small_cfg.model.backbone)
    multiply_adds = round(complexity.count(backbone, *shape)['total'].multiply_adds / 1e9, 1)
    assert entry['Metadata']['Backbone Multiply-Adds (G)'] == multiply_adds
    assert f'| {count} | {multiply_adds} |' in row


def test_trains_a_step(small_cfg, model):
    model.train()
    model.zero_grad()
    batch = random_batch(small_cfg)
    check_labels(model, batch)
    watch = ChannelWatch(model)
    data = model.data_preprocessor(batch, training=True)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    watch.remove()
    assert torch.isfinite(loss), log
    loss.backward()
    trainable = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    assert [name for name, grad in trainable.items() if grad is None] == []
    assert [name for name, grad in trainable.items() if not grad.isfinite().all()] == []


def test_regions_are_read_from_contiguous_maps(small_cfg, model):
    """mmcv's RoIAlign reads any other format as if it were this one."""
    if 'roi_head' not in small_cfg.model:
        pytest.skip('reads no regions')
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(2, 3, 64, 96))
    assert all(x.is_contiguous() for x in maps)


def test_predicts(small_cfg, model):
    model.eval()
    classes = head_of(small_cfg).num_classes
    if small_cfg.default_scope == 'mmseg':
        size, ori_shape = (61, 83), (90, 120)
        batch = dict(
            inputs=[torch.randint(256, (3, *size), dtype=torch.uint8)],
            data_samples=[seg_sample(size, classes, ori_shape)])
        sample, = model.test_step(batch)
        labels = sample.pred_sem_seg.data
        assert labels.shape == (1, *ori_shape)
        assert 0 <= labels.min() <= labels.max() < classes
        return
    for sample in model.test_step(random_batch(small_cfg)):
        found = sample.pred_instances
        assert len(found) > 0
        assert found.bboxes.isfinite().all()
        assert 0 <= found.labels.min() <= found.labels.max() < classes
        if 'roi_head' in small_cfg.model:
            assert found.masks.shape == (len(found), *sample.ori_shape)


def test_merges_augmented_views(small_cfg, model):
    if 'tta_model' not in small_cfg:
        pytest.skip('mmdet does not merge the masks of augmented images')
    batch = random_batch(small_cfg)
    views = dict(inputs=[], data_samples=[])
    for direction in (None, 'horizontal'):
        image, sample = batch['inputs'][0], copy.deepcopy(batch['data_samples'][0])
        sample.set_metainfo(dict(
            flip=direction is not None, flip_direction=direction, img_path='image.jpg'))
        views['inputs'].append([image.flip(-1) if direction else image])
        views['data_samples'].append([sample])
    model.eval()
    merged, = MODELS.build(dict(**small_cfg.tta_model, module=model)).test_step(views)
    if small_cfg.default_scope == 'mmseg':
        assert merged.pred_sem_seg.data.shape[-2:] == CROP
    else:
        assert 0 < len(merged.pred_instances) <= small_cfg.tta_model.tta_cfg.max_per_img


def test_sync_bn_reaches_every_norm(small_cfg, model):
    """What the runner does to the model when it is distributed."""
    if small_cfg.get('sync_bn') is None:
        pytest.skip('this config keeps BN')
    before = list(model.state_dict())
    converted = convert_sync_batchnorm(copy.deepcopy(model), small_cfg.sync_bn)
    norms = [m for m in converted.modules() if isinstance(m, _BatchNorm)]
    assert all(isinstance(m, SyncBatchNorm) for m in norms)
    assert list(converted.state_dict()) == before
