"""One demo image: textured shapes in front of one another on a photograph-like background."""

from dataclasses import dataclass

import cv2
import numpy as np
from shapes import CLASSES, draw
from textures import background, photograph, surface

SMALLEST, LARGEST = 18, 72  # diameters in pixels
# What must stay visible of every shape, or it could not be told what it is.
_MIN_VISIBLE = 0.5
_MIN_PIXELS = 40
# Typical hues are equally far apart on the colour wheel; a shape's own strays by this much (in turns), so that
# one in ten is nearer to the hue of another class.
_HUE_DEVIATION = 0.05
# Distance in RGB (each channel in [0, 1]) between a shape and what it covers.
_MIN_CONTRAST = 0.22


@dataclass
class Scene:
    """An image with its truth.

    Attributes:
        image (numpy.ndarray): uint8 RGB, shape (size, size, 3).
        owner (numpy.ndarray): int32, shape (size, size): 0 where the background shows, n where the
            n-th shape does.
        labels (list[int]): Index into ``CLASSES`` of each shape, rearmost first.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: list


def make_scene(size, rng):
    """Draw a scene.

    Args:
        size (int): Height and width in pixels, at least 32.
        rng (numpy.random.Generator): Its state decides everything about the scene.

    Returns:
        Scene: Up to eight shapes; every one is visible by half of its area at least.

    Raises:
        ValueError: If ``size`` is below 32.
    """
    if size < 32:
        raise ValueError(f'size must be at least 32 pixels, got size={size}')
    image = background(size, rng)
    owner = np.zeros((size, size), dtype=np.int32)
    labels, areas, centres = [], [], []
    wanted = int(rng.integers(3, 9))
    # A crowded image can refuse many places; it then has to do with fewer shapes.
    for _ in range(20 * wanted):
        if len(labels) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        diameter = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(min(LARGEST, 0.65 * size)))))
        centre = _place(size, centres, rng)
        coverage, area = draw(CLASSES[label], size, centre, diameter, rng)
        candidate = np.where(coverage >= 0.5, len(labels) + 1, owner)
        if not _all_visible(candidate, [*areas, area]):
            continue
        image = _composite(image, coverage, label / len(CLASSES), rng)
        owner = candidate.astype(np.int32)
        labels.append(label)
        areas.append(area)
        centres.append(centre)
    return Scene(photograph(image, rng), owner, labels)


def _place(size, centres, rng):
    """A random centre; often close to an earlier shape, so that overlaps are common."""
    if centres and rng.random() < 0.4:
        near = centres[rng.integers(len(centres))]
        return tuple(np.clip(near + rng.normal(0, size / 6, 2), 0, size))
    return tuple(rng.uniform(0, size, 2))


def _all_visible(owner, areas):
    visible = np.bincount(owner.ravel(), minlength=len(areas) + 1)[1:]
    return all(seen >= max(_MIN_PIXELS, _MIN_VISIBLE * area) for seen, area in zip(visible, areas))


def _composite(image, coverage, hue, rng):
    """Put a shape of random material of about this hue, with a soft shadow, in front of the image."""
    size = len(image)
    offset = rng.uniform(-2.5, 2.5, 2)
    shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]]])
    shadow = cv2.GaussianBlur(
        cv2.warpAffine(coverage, shift, (size, size)), (0, 0), rng.uniform(1, 3)
    )
    image = image * (1 - rng.uniform(0, 0.5) * shadow[..., None])
    inside = coverage >= 0.5
    material = best = None
    contrast = -1.0
    for _ in range(10):
        material = surface(size, rng, rng.normal(hue, _HUE_DEVIATION))
        found = float(np.linalg.norm(material[inside].mean(axis=0) - image[inside].mean(axis=0)))
        if found > contrast:
            best, contrast = material, found
        if contrast >= _MIN_CONTRAST:
            break
    alpha = coverage[..., None]
    return (image * (1 - alpha) + best * alpha).astype(np.float32)
