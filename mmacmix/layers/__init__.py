"""Modules that hold ACmix's parameters and call the operators; they need nothing but torch."""

from mmacmix.layers.acmix import ACmix
from mmacmix.layers.window_acmix import WindowACmix

__all__ = ['ACmix', 'WindowACmix']
