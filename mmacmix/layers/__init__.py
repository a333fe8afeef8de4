"""Modules that hold ACmix's parameters and call the operators; they need nothing but torch."""

from mmacmix.layers.acmix import ACmix
from mmacmix.layers.cost import Cost, Part
from mmacmix.layers.patchwise_acmix import PatchwiseACmix
from mmacmix.layers.reduced_acmix import SpatialReductionACmix
from mmacmix.layers.window_acmix import WindowACmix

__all__ = ['ACmix', 'Cost', 'Part', 'PatchwiseACmix', 'SpatialReductionACmix', 'WindowACmix']
