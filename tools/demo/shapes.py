"""Outlines of the demo's classes, drawn as soft masks.

Every class is a silhouette with a colour that is typical of it. Size, rotation, stretching and texture are
drawn from the same distributions for all, and colours stray into those of other classes, so colour hints at
the class and form decides: as with fruit or road signs, and learnable from nothing in minutes.
"""

import math

import cv2
import numpy as np

CLASSES = ('disc', 'triangle', 'square', 'star', 'ring', 'cross')
# For pictures only: the colours of the shapes in the images are those of scenes.py.
PALETTE = (
    (230, 60, 60),
    (60, 170, 75),
    (70, 110, 230),
    (240, 190, 30),
    (170, 70, 200),
    (40, 190, 200),
)

_OVERSAMPLING = 4
# cv2.fillPoly takes coordinates in 1/2**4 of a pixel.
_FRACTION_BITS = 4


def _regular(corners, radius=1.0):
    turns = np.arange(corners) / corners * 2 * math.pi
    return radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _star(points, inner):
    outline = _regular(2 * points)
    outline[1::2] *= inner
    return outline


def _cross(half_width):
    w = half_width
    quarter = [(1, -w), (1, w), (w, w)]
    corners = []
    for x, y in quarter:
        corners.append((x, y))
    for _ in range(3):
        corners.extend((-y, x) for x, y in corners[-3:])
    return np.array(corners, dtype=float)


def outline(kind, rng):
    """The outline of a class within the unit circle.

    Args:
        kind (str): One of ``CLASSES``.
        rng (numpy.random.Generator): Draws what may vary inside a class, as a ring's thickness.

    Returns:
        list[numpy.ndarray]: Closed polygons of shape (n, 2); a second one is a hole in the first.

    Raises:
        ValueError: If there is no such class.
    """
    if kind == 'disc':
        return [_regular(64)]
    if kind == 'triangle':
        return [_regular(3)]
    if kind == 'square':
        return [_regular(4)]
    if kind == 'star':
        return [_star(5, rng.uniform(0.40, 0.48))]
    if kind == 'ring':
        return [_regular(64), _regular(64, rng.uniform(0.45, 0.62))]
    if kind == 'cross':
        return [_cross(rng.uniform(0.26, 0.36))]
    raise ValueError(f'kind must be one of {CLASSES}, got kind={kind!r}')


def draw(kind, size, centre, diameter, rng):
    """A soft mask of one shape, turned and stretched at random.

    Args:
        kind (str): One of ``CLASSES``.
        size (int): Height and width of the image, in pixels.
        centre (tuple[float, float]): (x, y) in pixels; the shape may reach over the border.
        diameter (float): Of the circle around the shape, in pixels.
        rng (numpy.random.Generator): Source of rotation and stretching.

    Returns:
        tuple[numpy.ndarray, float]: Coverage of each pixel in [0, 1], shape (size, size), and the
        area of the whole shape in pixels, the part beyond the border included.
    """
    turn, axis = rng.uniform(0, 2 * math.pi, 2)
    squeeze = np.diag([1.0, rng.uniform(0.75, 1.0)])
    transform = _rotation(turn) @ squeeze @ _rotation(axis)
    polygons = [points @ transform.T * (diameter / 2) for points in outline(kind, rng)]
    area = _area(polygons[0]) - sum(_area(hole) for hole in polygons[1:])

    scale = _OVERSAMPLING
    fine = np.zeros((size * scale, size * scale), dtype=np.uint8)
    fixed = [
        np.round(((points + centre) * scale - 0.5) * 2**_FRACTION_BITS).astype(np.int32)
        for points in polygons
    ]
    # Given together, the inner polygon of a ring cuts a hole (even-odd rule).
    cv2.fillPoly(fine, fixed, 255, lineType=cv2.LINE_8, shift=_FRACTION_BITS)
    coverage = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) / 255, area


def _rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _area(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
