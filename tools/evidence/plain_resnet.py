"""MMDetection's ResNet in the depths of ResNet-ACmix, which its own table of depths does not have."""

from mmdet.models.backbones.resnet import Bottleneck, ResNet
from mmengine.registry import MODELS


@MODELS.register_module()
class PlainResNet(ResNet):
    """ResNet with bottlenecks of depth 26 or 38, the stages of ResNet-ACmix; other depths are the host's."""

    arch_settings = {26: (Bottleneck, (1, 2, 4, 1)), 38: (Bottleneck, (2, 3, 5, 2)), **ResNet.arch_settings}
