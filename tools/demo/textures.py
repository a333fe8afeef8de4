"""Procedural surfaces: what the shapes are made of, and the photograph-like scenes behind them.

All functions return float32 RGB maps of shape (size, size, 3) with values around [0, 1].
"""

import colorsys
import math

import cv2
import numpy as np


def fractal_noise(size, rng, octaves=4, first=2, stretch=1.0):
    """Noise of several octaves, as in clouds or stone.

    Args:
        size (int): Height and width in pixels.
        rng (numpy.random.Generator): Source of randomness.
        octaves (int): Number of layers, each of twice the frequency and half the weight.
        first (int): Cells along the coarsest layer.
        stretch (float): Above 1 the cells become that much longer than high (wood grain, ripples).

    Returns:
        numpy.ndarray: float32, shape (size, size), scaled to [0, 1].
    """
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        columns = first * 2**octave
        rows = min(size, round(columns * stretch))
        grid = rng.random((rows + 1, min(size, columns) + 1)).astype(np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2**octave
    total -= total.min()
    return total / max(total.max(), 1e-6)


def surface(size, rng, hue):
    """A textured, unevenly lit surface of about this hue (in turns of the colour wheel) for one shape."""
    kind = rng.choice(['plain', 'noise', 'stripes', 'checks', 'dots', 'marble'])
    first, second = _vivid(rng, hue)
    if kind == 'plain':
        mix = 0.25 * fractal_noise(size, rng, octaves=2)
    elif kind == 'noise':
        mix = fractal_noise(size, rng, octaves=4, first=8)
    else:
        mix = _pattern(kind, size, rng)
    image = _blend(first, second, mix)
    return image * (_ramp(size, rng, 0.75, 1.15)[..., None])


def background(size, rng):
    """A scene without shapes: ground, clutter, uneven light, slightly out of focus."""
    kind = rng.choice(['clouds', 'landscape', 'grain', 'cells'])
    if kind == 'clouds':
        image = _blend(*_muted(rng), fractal_noise(size, rng, octaves=5))
    elif kind == 'landscape':
        image = _landscape(size, rng)
    elif kind == 'grain':
        image = _blend(
            *_muted(rng), fractal_noise(size, rng, octaves=4, stretch=rng.uniform(4, 8))
        )
        image = image if rng.random() < 0.5 else image.transpose(1, 0, 2)
    else:
        image = _cells(size, rng)
    image = _clutter(np.ascontiguousarray(image), rng)
    fine = fractal_noise(size, rng, octaves=3, first=16)
    image = image + rng.uniform(0.05, 0.2) * (fine[..., None] - 0.5)
    image = image * _ramp(size, rng, 0.7, 1.15)[..., None]
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.5, 1.2))


def photograph(image, rng):
    """What a camera adds: exposure, colour cast, softness and noise. Returns uint8 RGB."""
    image = np.clip(image, 0, 1) ** rng.uniform(0.8, 1.25)
    image = image * rng.uniform(0.92, 1.08, 3)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.3, 0.7))
    image = image + rng.normal(0, rng.uniform(0.005, 0.025), image.shape)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _vivid(rng, hue):
    """Two saturated colours for the material of a shape, near one another or not."""
    first = np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.0)))
    return first, np.clip(first + rng.normal(0, 0.1) + rng.normal(0, 0.07, 3), 0.0, 1.0)


def _muted(rng):
    """Two dull colours for the scene: stone, soil, cloth."""
    grey = rng.uniform(0.15, 0.85)
    first = grey + rng.uniform(-0.12, 0.12, 3)
    return first, np.clip(first + rng.normal(0, 0.15) + rng.normal(0, 0.04, 3), 0.03, 1.0)


def _blend(first, second, mix):
    mix = mix[..., None].astype(np.float32)
    return (first * (1 - mix) + second * mix).astype(np.float32)


def _ramp(size, rng, low, high):
    """Light that falls off linearly in a random direction, shape (size, size)."""
    angle = rng.uniform(0, 2 * math.pi)
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    along = (math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]) / math.sqrt(2)
    return low + (high - low) * (along + 1) / 2


def _pattern(kind, size, rng):
    """Stripes, checks, dots or marble in [0, 1], shape (size, size)."""
    period = rng.uniform(5, 14)
    angle = rng.uniform(0, math.pi)
    axis = np.arange(size, dtype=np.float32)
    u = (math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]) * 2 * math.pi / period
    v = (-math.sin(angle) * axis[None, :] + math.cos(angle) * axis[:, None]) * 2 * math.pi / period
    if kind == 'stripes':
        wave = np.sin(u)
    elif kind == 'checks':
        wave = np.sin(u) * np.sin(v) * 2
    elif kind == 'dots':
        wave = np.cos(u) + np.cos(v) - 0.6
    else:
        wave = np.sin(u + 8 * fractal_noise(size, rng, octaves=3))
    return 1 / (1 + np.exp(-4 * wave))


def _landscape(size, rng):
    """Bands with a ragged upper edge, each darker or lighter than the one behind."""
    image = _blend(*_muted(rng), np.repeat(np.linspace(0, 1, size)[:, None], size, axis=1))
    rows = np.arange(size)[:, None]
    for start in np.sort(rng.uniform(0.2, 0.95, rng.integers(1, 4))):
        ridge = fractal_noise(size, rng, octaves=4)[0] * size * rng.uniform(0.05, 0.25)
        band = _blend(*_muted(rng), fractal_noise(size, rng, octaves=5, first=4))
        image = np.where((rows > start * size - ridge)[..., None], band, image)
    return image


def _cells(size, rng):
    """Cobbles: random points colour what is nearest to them, with dark joints between."""
    count = int(rng.integers(15, 60))
    points = rng.uniform(0, size, (count, 2)).astype(np.float32)
    axis = np.arange(size, dtype=np.float32)
    distance = np.hypot(axis[None, :, None] - points[:, 0], axis[:, None, None] - points[:, 1])
    nearest = distance.argmin(axis=2)
    two = np.partition(distance, 1, axis=2)[..., :2]
    joints = np.clip((two[..., 1] - two[..., 0]) / 3, 0, 1)
    first, second = _muted(rng)
    image = _blend(first, second, rng.random(count)[nearest])
    return image * (0.6 + 0.4 * joints[..., None])


def _clutter(image, rng):
    """Threads and stains, so that not every edge belongs to a shape."""
    size = len(image)
    for _ in range(rng.integers(0, 6)):
        steps = rng.normal(0, size / 6, (6, 2)).cumsum(axis=0) + rng.uniform(0, size, 2)
        colour = tuple(float(value) for value in rng.uniform(0, 1, 3))
        points = np.round(_smooth(steps) * 16).astype(np.int32)
        cv2.polylines(image, [points], False, colour, int(rng.integers(1, 3)), cv2.LINE_AA, shift=4)
    for _ in range(rng.integers(0, 3)):
        noise = fractal_noise(size, rng, octaves=4, first=3)
        stain = np.clip((noise - rng.uniform(0.62, 0.8)) * 12, 0, 1)[..., None]
        image = image * (1 - 0.8 * stain) + 0.8 * stain * _muted(rng)[0]
    return image


def _smooth(points):
    """The points of a curve through a coarse polyline."""
    fine = np.linspace(0, len(points) - 1, 40)
    whole = np.arange(len(points))
    curve = np.stack([np.interp(fine, whole, points[:, axis]) for axis in range(2)], axis=1)
    kernel = np.ones(7) / 7
    return np.stack(
        [np.convolve(curve[:, axis], kernel, mode='valid') for axis in range(2)], axis=1
    )
