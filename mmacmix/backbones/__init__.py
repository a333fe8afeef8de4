"""Backbones for MMDetection and MMSegmentation alike; they import neither."""

from mmacmix.backbones.resnet_acmix import ResNetACmix
from mmacmix.backbones.swin_acmix import SwinACmix

__all__ = ['ResNetACmix', 'SwinACmix']
