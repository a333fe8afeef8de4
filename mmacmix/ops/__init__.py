"""The mathematics of ACmix as functions of tensors; needs nothing but torch."""

from mmacmix.ops.backends import use_backend
from mmacmix.ops.conv_path import convolution_path
from mmacmix.ops.local_attention import local_attention, packed_local_attention

__all__ = ['convolution_path', 'local_attention', 'packed_local_attention', 'use_backend']
