"""ACmix (self-attention plus convolution) backbones for MMDetection and MMSegmentation."""

__version__ = '0.1.0'
