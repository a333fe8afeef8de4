"""Forward kernels of local attention, and the device functions that the backward kernels share.

Two schemes, chosen in :mod:`mmacmix.ops.triton_kernels`:

* ``forward_taps``: one lane per query, a loop over the k * k taps of its window, fp32 FMAs. Nothing is computed
  in vain; neighbours read each other's keys from L1.
* ``forward_tiles``: the keys around a tile of queries in blocks, products on tensor cores, online softmax
  (FlashAttention, arXiv 2205.14135); pairs outside the window are masked.

In every kernel pixels are the last axis of a block, (BLOCK_D, pixels): neighbouring lanes then read neighbouring
addresses of an NCHW map, and for channels_last the compiler sees the unit stride along the other axis.
"""

import triton
import triton.language as tl

# torch 2.0 to 2.3 come with Triton 2, whose compiler does not take these kernels.
if int(triton.__version__.split('.')[0]) < 3:
    raise ImportError(f'the kernels need triton 3.0 or later, which torch 2.4 brings, got triton {triton.__version__}')

# Sizes and strides that change with the map. The strides of channels and columns stay specialised, because 1 there
# tells the compiler which axis is contiguous.
PER_MAP = [
    'heads',
    'height',
    'width',
    'out_height',
    'out_width',
    'tiles_y',
    'tiles_x',
    *(f'{x}_{axis}' for x in ('q', 'k', 'v', 'o', 'g', 'gq', 'gk', 'gv') for axis in ('b', 'h', 'y')),
    'p_y',
]
FAR = tl.constexpr(1 << 28)  # a position that no window reaches


@triton.jit
def locate(heads, tiles_y, tiles_x, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Image, head and first pixel of this program's tile; the grid has one axis, x, as the others end at 65,535."""
    program = tl.program_id(0)
    tile_x = program % tiles_x
    rest = program // tiles_x
    tile_y = rest % tiles_y
    image_head = rest // tiles_y
    image = image_head // heads
    return image.to(tl.int64), (image_head - image * heads).to(tl.int64), tile_y * TILE_H, tile_x * TILE_W


@triton.jit
def reflect(position, length, folds):
    """Entry that a position outside of the axis reads; ``folds`` >= border / (length - 1) takes any border back."""
    last = length - 1
    span = tl.maximum(last, 1)
    for _ in range(folds):
        position = span - tl.abs(span - tl.abs(position))
    return tl.minimum(position, last)


@triton.jit
def region_pixel(index, cols, inverse):
    """Row and column of a flat index; exact in fp32, as regions have far fewer than 2**20 pixels."""
    row = ((index.to(tl.float32) + 0.5) * inverse).to(tl.int32)
    return row, index - row * cols


@triton.jit
def pixel_offsets(y, x, stride_y, stride_x, OFFSET: tl.constexpr):
    return y.to(OFFSET) * stride_y + x.to(OFFSET) * stride_x


@triton.jit
def load_pixels(base, stride_d, pixels, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """(BLOCK_D, pixels), channels from D on are 0. The pixels are inside of the map."""
    channel = tl.arange(0, BLOCK_D)
    pointers = base + ((channel.to(pixels.dtype) * stride_d)[:, None] + pixels[None, :])
    if D == BLOCK_D:
        values = tl.load(pointers)
    else:
        values = tl.load(pointers, mask=(channel < D)[:, None], other=0.0)
    return values


@triton.jit
def store_pixels(base, stride_d, pixels, values, inside, D: tl.constexpr, BLOCK_D: tl.constexpr):
    channel = tl.arange(0, BLOCK_D)
    pointers = base + ((channel.to(pixels.dtype) * stride_d)[:, None] + pixels[None, :])
    mask = inside[None, :] & (channel < D)[:, None]
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_keys(
    k,
    k_d,
    pixels,
    position,
    p_d,
    position_pixels,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    HAS_POSITION: tl.constexpr,
):
    """Keys less their position code, in fp32 where there is one."""
    keys = load_pixels(k, k_d, pixels, D, BLOCK_D)
    if HAS_POSITION:
        code = load_pixels(position, p_d, position_pixels, D, BLOCK_D)
        keys = keys.to(tl.float32) - code.to(tl.float32)
    return keys


@triton.jit(do_not_specialize=PER_MAP)
def forward_taps(
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    out, o_b, o_h, o_d, o_y, o_x,
    log_sum, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
    OFFSET: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_POSITION: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    image, head, top, left = locate(heads, tiles_y, tiles_x, TILE_H, TILE_W)
    lane = tl.arange(0, TILE_H * TILE_W)
    y = top + lane // TILE_W
    x = left + lane % TILE_W
    inside = (y < out_height) & (x < out_width)
    y = tl.minimum(y, out_height - 1)
    x = tl.minimum(x, out_width - 1)
    q += image * q_b + head * q_h
    k += image * k_b + head * k_h
    v += image * v_b + head * v_h
    queries = load_pixels(q, q_d, pixel_offsets(y * STRIDE, x * STRIDE, q_y, q_x, OFFSET), D, BLOCK_D)
    queries = queries.to(tl.float32) * scale
    largest = tl.full((TILE_H * TILE_W,), -3.0e38, tl.float32)
    total = tl.zeros((TILE_H * TILE_W,), tl.float32)
    mixed = tl.zeros((BLOCK_D, TILE_H * TILE_W), tl.float32)
    for i in range(KERNEL):
        key_y = reflect(y * STRIDE + (i - KERNEL // 2) * DILATION, height, folds_y)
        for j in range(KERNEL):
            key_x = reflect(x * STRIDE + (j - KERNEL // 2) * DILATION, width, folds_x)
            keys = load_keys(
                k, k_d, pixel_offsets(key_y, key_x, k_y, k_x, OFFSET),
                position, p_d, pixel_offsets(key_y, key_x, p_y, p_x, OFFSET),
                D, BLOCK_D, HAS_POSITION,
            ).to(tl.float32)  # fmt: skip
            values = load_pixels(v, v_d, pixel_offsets(key_y, key_x, v_y, v_x, OFFSET), D, BLOCK_D).to(tl.float32)
            logit = tl.sum(queries * keys, 0)
            larger = tl.maximum(largest, logit)
            shrink = tl.exp(largest - larger)
            weight = tl.exp(logit - larger)
            total = total * shrink + weight
            mixed = mixed * shrink[None, :] + weight[None, :] * values
            largest = larger
    pixels = pixel_offsets(y, x, o_y, o_x, OFFSET)
    store_pixels(out + image * o_b + head * o_h, o_d, pixels, mixed / total[None, :], inside, D, BLOCK_D)
    rows = (image * heads + head) * out_height + y
    tl.store(log_sum + rows * out_width + x, largest + tl.log(total), mask=inside)


@triton.jit(do_not_specialize=PER_MAP)
def forward_tiles(
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    out, o_b, o_h, o_d, o_y, o_x,
    log_sum, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
    OFFSET: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_POSITION: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    tl.static_assert(DILATION == 1)
    image, head, top, left = locate(heads, tiles_y, tiles_x, TILE_H, TILE_W)
    lane = tl.arange(0, TILE_H * TILE_W)
    y = top + lane // TILE_W
    x = left + lane % TILE_W
    inside = (y < out_height) & (x < out_width)
    y = tl.minimum(y, out_height - 1)
    x = tl.minimum(x, out_width - 1)
    q += image * q_b + head * q_h
    k += image * k_b + head * k_h
    v += image * v_b + head * v_h
    queries = tl.trans(load_pixels(q, q_d, pixel_offsets(y * STRIDE, x * STRIDE, q_y, q_x, OFFSET), D, BLOCK_D))
    largest = tl.full((TILE_H * TILE_W,), -3.0e38, tl.float32)
    total = tl.zeros((TILE_H * TILE_W,), tl.float32)
    mixed = tl.zeros((TILE_H * TILE_W, BLOCK_D), tl.float32)
    # The keys of the tile, on the map continued beyond its border.
    rows = (tl.minimum(TILE_H, out_height - top) - 1) * STRIDE + KERNEL
    cols = (tl.minimum(TILE_W, out_width - left) - 1) * STRIDE + KERNEL
    inverse = 1.0 / cols
    for start in range(0, rows * cols, BLOCK):
        index = start + tl.arange(0, BLOCK)
        row, col = region_pixel(tl.minimum(index, rows * cols - 1), cols, inverse)
        row += top * STRIDE - KERNEL // 2
        col += left * STRIDE - KERNEL // 2
        key_y = reflect(row, height, folds_y)
        key_x = reflect(col, width, folds_x)
        keys = load_keys(
            k, k_d, pixel_offsets(key_y, key_x, k_y, k_x, OFFSET),
            position, p_d, pixel_offsets(key_y, key_x, p_y, p_x, OFFSET),
            D, BLOCK_D, HAS_POSITION,
        ).to(queries.dtype)  # fmt: skip
        values = load_pixels(v, v_d, pixel_offsets(key_y, key_x, v_y, v_x, OFFSET), D, BLOCK_D)
        row = tl.where(index < rows * cols, row, FAR)
        near_y = tl.abs(row[None, :] - (y * STRIDE)[:, None]) <= KERNEL // 2
        near_x = tl.abs(col[None, :] - (x * STRIDE)[:, None]) <= KERNEL // 2
        logits = tl.dot(queries, keys, input_precision='tf32') * scale
        logits = tl.where(near_y & near_x, logits, float('-inf'))
        # Finite from the start, so that a block without any key of some query is no difference of infinities.
        larger = tl.maximum(largest, tl.max(logits, 1))
        shrink = tl.exp(largest - larger)
        weights = tl.exp(logits - larger[:, None])
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(weights.to(values.dtype), tl.trans(values), mixed, input_precision='tf32')
        largest = larger
    pixels = pixel_offsets(y, x, o_y, o_x, OFFSET)
    mixed = tl.trans(mixed / total[:, None])
    store_pixels(out + image * o_b + head * o_h, o_d, pixels, mixed, inside, D, BLOCK_D)
    rows_above = (image * heads + head) * out_height + y
    tl.store(log_sum + rows_above * out_width + x, largest + tl.log(total), mask=inside)
