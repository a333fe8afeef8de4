"""What does not fit is named; what works is never refused, whatever its parts are called."""

import re

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import nn

from mmacmix.backbones import ResNetACmix
from mmacmix.engine import SetupError
from mmacmix.engine.model_checks import ChannelWatch, check_classes, check_frozen, check_labels, unwrapped

SMALL = dict(stem_channels=8, base_channels=8, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))


def named(name, **attributes):
    """A module of a class called `name`."""
    module = type(name, (nn.Module,), {})()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def segmenter(**head):
    head = dict(num_classes=2, ignore_index=255, loss_decode=named('CrossEntropyLoss', use_sigmoid=False), **head)
    return named('EncoderDecoder', decode_head=named('FCNHead', **head))


@pytest.mark.parametrize('model, setting', [
    (named('RetinaNet', bbox_head=named('RetinaHead', num_classes=80)), 'model.bbox_head.num_classes=80'),
    (named('CascadeRCNN', roi_head=named('CascadeRoIHead', bbox_head=nn.ModuleList(
        [named('BBoxHead', num_classes=2), named('BBoxHead', num_classes=80)]))),
     'model.roi_head.bbox_head.1.num_classes=80'),
    (named('ImageClassifier', head=named('LinearClsHead', num_classes=1000)), 'model.head.num_classes=1000'),
])
def test_heads_with_other_classes(model, setting):
    with pytest.raises(SetupError, match=re.escape(
            'heads must have the 2 classes of train_dataloader.dataset.metainfo.classes (dark, light), '
            f'got {setting}') + '$'):
        check_classes(model, ('dark', 'light'), 'train_dataloader.dataset')


@pytest.mark.parametrize('model', [
    named('RPN', rpn_head=named('RPNHead', num_classes=1)),
    named('OneStageRPN', bbox_head=named('RPNHead', num_classes=1)),
    named('PanopticFPN', semantic_head=named('PanopticFPNHead', num_classes=54),
          roi_head=named('StandardRoIHead', bbox_head=named('BBoxHead', num_classes=80))),
    named('GroundingDINO', language_model=named('BertModel'), bbox_head=named('GroundingDINOHead', num_classes=256)),
    named('HybridTaskCascade', roi_head=named('HTCRoIHead', semantic_head=named('FusedSemanticHead', num_classes=183))),
    named('MaskRCNN', roi_head=named('RoIHead', mask_head=named('FCNMaskHead', num_classes=1, class_agnostic=True))),
    named('EncoderDecoder', decode_head=named('VPDDepthHead', num_classes=1, loss_decode=named('SiLogLoss'))),
    named('EncoderDecoder', auxiliary_head=nn.ModuleList([named('STDCHead', num_classes=2, loss_decode=nn.ModuleList(
        [named('CrossEntropyLoss', use_sigmoid=True), named('DiceLoss')]))])),
    named('MoCo', head=named('MoCoHead', num_classes=65536)),
], ids=lambda model: type(model).__name__)
def test_heads_that_count_otherwise(model):
    check_classes(model, tuple('abc'), 'train_dataloader.dataset')


def test_frozen_stages_need_weights():
    frozen = ResNetACmix(26, frozen_stages=1, **SMALL)
    message = 'frozen stages must have weights to keep: .* got model.backbone.frozen_stages=1'
    with pytest.raises(SetupError, match=message):
        check_frozen(named('RetinaNet', backbone=frozen), loaded=False)
    check_frozen(named('RetinaNet', backbone=frozen), loaded=True)
    check_frozen(named('RetinaNet', backbone=ResNetACmix(26, **SMALL)), loaded=False)
    start = dict(type='Pretrained', checkpoint='weights.pth')
    for init_cfg in (start, [dict(type='Kaiming', layer='Conv2d'), start]):
        check_frozen(named('RetinaNet', backbone=ResNetACmix(26, frozen_stages=0, init_cfg=init_cfg, **SMALL)), False)
    check_frozen(named('RetinaNet', backbone=frozen, init_cfg=start), loaded=False)
    # One of another host may load its weights by itself.
    check_frozen(named('RetinaNet', backbone=named('CLIP', frozen_stages=1)), loaded=False)
    check_frozen(named('Other'), loaded=False)


class Detector(nn.Module):
    def __init__(self, taken=128):
        super().__init__()
        self.backbone = ResNetACmix(26, **SMALL)
        self.neck = named('Neck', conv=nn.Conv2d(64, 4, 1), norm=nn.BatchNorm2d(4))
        self.bbox_head = named('Head', fc=nn.Linear(taken, 2), empty=nn.LazyLinear(3))

    def forward(self, x):
        x = self.neck.norm(self.neck.conv(self.backbone(x)[-1]))
        return self.bbox_head.fc(x.flatten(1))


def test_layers_that_do_not_fit():
    model = Detector(taken=100)
    watch = ChannelWatch(model)
    with pytest.raises(SetupError, match=r'channels must fit: model\.bbox_head\.fc takes 100, and is given 16; set '
                       r'in_channels of model\.bbox_head \(channels of maps: backbone \[32, 64\]\)'):
        model(torch.randn(1, 3, 16, 16))
    watch.remove()
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        model(torch.randn(1, 3, 16, 16))


def test_watching_leaves_nothing_behind_and_changes_nothing():
    model = Detector(taken=16).train()
    before = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    x = torch.randn(2, 3, 16, 16)
    expected = model(x)
    watch = ChannelWatch(model)
    assert torch.equal(model(x), expected)
    # Layers of ours compute otherwise where they are looked at.
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.backbone.children())
    watch.remove()
    assert before == {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    assert not model.backbone._forward_hooks


class CoordConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(torch.cat([x, x[:, :1]], 1))


def test_layers_that_add_channels_are_left_alone():
    model = named('Detector', neck=named('Neck', conv=CoordConv(4, 2, 1)))
    watch = ChannelWatch(model)
    assert model.neck.conv(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    watch.remove()


def sample(labels, size=(4, 4)):
    metainfo = dict(img_path='0.jpg', seg_map_path='0.png')
    truth = named('SegDataSample', gt_sem_seg=named('PixelData', data=labels), metainfo=metainfo)
    return dict(inputs=[torch.zeros(3, *size)], data_samples=[truth])


def test_labels_that_are_no_class():
    labels = torch.tensor([0, 1, 255, 5]).repeat(4, 1)[None]
    with pytest.raises(SetupError, match=r'labels must be below model.decode_head.num_classes=2, or 255 \(ignored\), '
                       r'got 5 \(as the loss is given them\) in 0.png'):
        check_labels(segmenter(), sample(labels))
    check_labels(segmenter(), sample(labels.clamp(max=1)))
    check_labels(segmenter(), sample(labels.where(labels < 5, 255)))


def test_labels_that_a_loss_takes_as_background():
    model = segmenter()
    model.decode_head.loss_decode.use_sigmoid = True
    check_labels(model, sample(torch.full((1, 4, 4), 5)))


def test_label_maps_of_another_size():
    with pytest.raises(SetupError, match='must have the size of its image, got 4x4 and 6x4 after the pipeline for 0'):
        check_labels(segmenter(), sample(torch.zeros(1, 4, 4), size=(4, 6)))


@pytest.mark.parametrize(
    'batch', [None, [torch.zeros(2)], dict(inputs=torch.zeros(1, 3, 4, 4), data_samples=[object()]), dict(x=1)])
def test_other_batches(batch):
    check_labels(segmenter(), batch)
    check_labels(named('Detector'), batch)


def test_wrappers_are_taken_off():
    class Augmented(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    inner = segmenter()
    inner.test_step = None
    assert unwrapped(Augmented(module=inner)) is inner
