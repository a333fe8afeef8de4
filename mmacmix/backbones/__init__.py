"""Backbones for MMDetection and MMSegmentation alike; they import neither."""

from mmacmix.backbones.pvt_acmix import PVTACmix
from mmacmix.backbones.resnet_acmix import ResNetACmix
from mmacmix.backbones.san_acmix import SANACmix
from mmacmix.backbones.swin_acmix import SwinACmix

__all__ = ['PVTACmix', 'ResNetACmix', 'SANACmix', 'SwinACmix']
