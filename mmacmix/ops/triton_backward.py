"""Backward kernels of local attention: one pass over queries, one over keys, no atomics.

Both compute the probabilities again from the log-sum-exp (FlashAttention, arXiv 2205.14135). The pass over queries
also leaves delta = <grad, out> of every query for the pass over keys.
"""

import triton
import triton.language as tl

from mmacmix.ops.triton_forward import (
    FAR,
    PER_MAP,
    load_keys,
    load_pixels,
    locate,
    pixel_offsets,
    reflect,
    region_pixel,
    store_pixels,
)


@triton.jit
def probability(logit, log_sum):
    """At most 1, also where logits of 1e8 were rounded differently in the two passes."""
    return tl.exp(tl.minimum(logit - log_sum, 0.0))


@triton.jit
def image_of(key, copy, length):
    """Where the given copy of the map shows a key; copy 0 is the map, odd ones are mirrored.

    An end of the map is shown by two neighbouring copies at one place: the further one leaves it out, by FAR.
    """
    last = length - 1
    span = tl.maximum(last, 1)
    shown = copy * span + tl.where(copy % 2 == 0, key, last - key)
    shared = ((copy > 0) & (shown == copy * span)) | ((copy < 0) & (shown == (copy + 1) * span))
    return tl.where(shared & (length > 1), FAR, shown)


@triton.jit
def times_read(query, key, length, PAD: tl.constexpr, copies):
    """How many taps of each query read its key, per axis."""
    times = tl.zeros_like(key)
    for copy in range(-copies, copies + 1):
        times += (tl.abs(query - image_of(key, copy, length)) <= PAD).to(tl.int32)
    return times


@triton.jit(do_not_specialize=PER_MAP)
def grad_queries_taps(
    grad, g_b, g_h, g_d, g_y, g_x,
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    out, o_b, o_h, o_d, o_y, o_x,
    grad_q, gq_b, gq_h, gq_d, gq_y, gq_x,
    log_sum, delta, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
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
    grad += image * g_b + head * g_h
    q += image * q_b + head * q_h
    k += image * k_b + head * k_h
    v += image * v_b + head * v_h
    queries = load_pixels(q, q_d, pixel_offsets(y * STRIDE, x * STRIDE, q_y, q_x, OFFSET), D, BLOCK_D)
    queries = queries.to(tl.float32) * scale
    grads = load_pixels(grad, g_d, pixel_offsets(y, x, g_y, g_x, OFFSET), D, BLOCK_D).to(tl.float32)
    outs = load_pixels(out + image * o_b + head * o_h, o_d, pixel_offsets(y, x, o_y, o_x, OFFSET), D, BLOCK_D)
    deltas = tl.sum(grads * outs.to(tl.float32), 0)
    flat = ((image * heads + head) * out_height + y) * out_width + x
    tl.store(delta + flat, deltas, mask=inside)
    log_sums = tl.load(log_sum + flat)
    result = tl.zeros((BLOCK_D, TILE_H * TILE_W), tl.float32)
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
            weight = probability(tl.sum(queries * keys, 0), log_sums)
            weight *= tl.sum(grads * values, 0) - deltas
            result += weight[None, :] * keys
    pixels = pixel_offsets(y * STRIDE, x * STRIDE, gq_y, gq_x, OFFSET)
    store_pixels(grad_q + image * gq_b + head * gq_h, gq_d, pixels, result * scale, inside, D, BLOCK_D)


@triton.jit(do_not_specialize=PER_MAP)
def grad_keys_taps(
    grad, g_b, g_h, g_d, g_y, g_x,
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    grad_k, gk_b, gk_h, gk_d, gk_y, gk_x,
    grad_v, gv_b, gv_h, gv_d, gv_y, gv_x,
    log_sum, delta, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
    OFFSET: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_POSITION: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """Undilated: every query in reach once, weighted by the number of its taps that read the key, as a reflection is
    never further from a query than what it reflects. Dilated, reflections would fall between the taps, so that the
    keys are those of the continued map, (height + 2 pad, width + 2 pad), and the caller folds its gradients.
    """
    PAD: tl.constexpr = KERNEL // 2 * DILATION
    BORDER: tl.constexpr = PAD if DILATION > 1 else 0
    # Strides between the queries that read one key; a dilated window is walked tap by tap.
    STEP: tl.constexpr = STRIDE if DILATION == 1 else DILATION
    ALIGN: tl.constexpr = STRIDE if DILATION == 1 else 1
    image, head, top, left = locate(heads, tiles_y, tiles_x, TILE_H, TILE_W)
    lane = tl.arange(0, TILE_H * TILE_W)
    key_y = top - BORDER + lane // TILE_W
    key_x = left - BORDER + lane % TILE_W
    inside = (key_y < height + BORDER) & (key_x < width + BORDER)
    key_y = tl.minimum(key_y, height + BORDER - 1)
    key_x = tl.minimum(key_x, width + BORDER - 1)
    # Tiles inside of the map see no copies of it.
    copies_y = tl.where(((top > PAD) & (top + TILE_H < height - PAD)) | (DILATION > 1), 0, folds_y)
    copies_x = tl.where(((left > PAD) & (left + TILE_W < width - PAD)) | (DILATION > 1), 0, folds_x)
    grad += image * g_b + head * g_h
    q += image * q_b + head * q_h
    y = reflect(key_y, height, folds_y)
    x = reflect(key_x, width, folds_x)
    keys = load_keys(
        k + image * k_b + head * k_h, k_d, pixel_offsets(y, x, k_y, k_x, OFFSET),
        position, p_d, pixel_offsets(y, x, p_y, p_x, OFFSET),
        D, BLOCK_D, HAS_POSITION,
    ).to(tl.float32)  # fmt: skip
    pixels = pixel_offsets(y, x, v_y, v_x, OFFSET)
    values = load_pixels(v + image * v_b + head * v_h, v_d, pixels, D, BLOCK_D).to(tl.float32)
    grads_k = tl.zeros((BLOCK_D, TILE_H * TILE_W), tl.float32)
    grads_v = tl.zeros((BLOCK_D, TILE_H * TILE_W), tl.float32)
    flat = (image * heads + head) * out_height * out_width
    last_y = key_y + PAD - (key_y + PAD) % ALIGN
    last_x = key_x + PAD - (key_x + PAD) % ALIGN
    for i in range(2 * PAD // STEP + 1):
        query_y = last_y - i * STEP
        times_y = times_read(query_y, key_y, height, PAD, copies_y)
        times_y = tl.where((query_y >= 0) & (query_y < height) & (query_y % STRIDE == 0), times_y, 0)
        y = tl.minimum(tl.maximum(query_y, 0), height - 1) // STRIDE
        for j in range(2 * PAD // STEP + 1):
            query_x = last_x - j * STEP
            times_x = times_read(query_x, key_x, width, PAD, copies_x)
            times_x = tl.where((query_x >= 0) & (query_x < width) & (query_x % STRIDE == 0), times_x, 0)
            x = tl.minimum(tl.maximum(query_x, 0), width - 1) // STRIDE
            # Scaled before the product as in the other passes, for the same rounding.
            queries = load_pixels(q, q_d, pixel_offsets(y * STRIDE, x * STRIDE, q_y, q_x, OFFSET), D, BLOCK_D)
            queries = queries.to(tl.float32) * scale
            grads = load_pixels(grad, g_d, pixel_offsets(y, x, g_y, g_x, OFFSET), D, BLOCK_D).to(tl.float32)
            here = flat + y * out_width + x
            weight = probability(tl.sum(queries * keys, 0), tl.load(log_sum + here))
            weight *= (times_y * times_x).to(tl.float32)
            grads_v += weight[None, :] * grads
            weight *= tl.sum(grads * values, 0) - tl.load(delta + here)
            grads_k += weight[None, :] * queries
    y = key_y + BORDER
    x = key_x + BORDER
    pixels = pixel_offsets(y, x, gk_y, gk_x, OFFSET)
    store_pixels(grad_k + image * gk_b + head * gk_h, gk_d, pixels, grads_k, inside, D, BLOCK_D)
    pixels = pixel_offsets(y, x, gv_y, gv_x, OFFSET)
    store_pixels(grad_v + image * gv_b + head * gv_h, gv_d, pixels, grads_v, inside, D, BLOCK_D)


@triton.jit(do_not_specialize=PER_MAP)
def grad_queries_tiles(
    grad, g_b, g_h, g_d, g_y, g_x,
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    out, o_b, o_h, o_d, o_y, o_x,
    grad_q, gq_b, gq_h, gq_d, gq_y, gq_x,
    log_sum, delta, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
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
    grads = load_pixels(grad + image * g_b + head * g_h, g_d, pixel_offsets(y, x, g_y, g_x, OFFSET), D, BLOCK_D)
    outs = load_pixels(out + image * o_b + head * o_h, o_d, pixel_offsets(y, x, o_y, o_x, OFFSET), D, BLOCK_D)
    deltas = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 0)
    flat = ((image * heads + head) * out_height + y) * out_width + x
    tl.store(delta + flat, deltas, mask=inside)
    log_sums = tl.load(log_sum + flat)
    grads = tl.trans(grads.to(queries.dtype))
    result = tl.zeros((TILE_H * TILE_W, BLOCK_D), tl.float32)
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
        weights = probability(logits, log_sums[:, None])
        weights *= tl.dot(grads, values, input_precision='tf32') - deltas[:, None]
        result = tl.dot(weights.to(queries.dtype), tl.trans(keys), result, input_precision='tf32')
    pixels = pixel_offsets(y * STRIDE, x * STRIDE, gq_y, gq_x, OFFSET)
    result = tl.trans(result) * scale
    store_pixels(grad_q + image * gq_b + head * gq_h, gq_d, pixels, result, inside, D, BLOCK_D)


@triton.jit
def copies_in_reach(first, last, length, PAD: tl.constexpr, copies):
    """First and last copy of the map that shows pixels first..last of it within PAD of the map."""
    before = tl.where(first <= PAD, -copies, 0)
    after = tl.where(last >= length - 1 - PAD, copies, 0)
    return before, after


@triton.jit
def queries_in_reach(first, last, copy, length, out_length, STRIDE: tl.constexpr, PAD: tl.constexpr):
    """First query that may see pixels first..last of the map in the given copy, and how many there are from it on."""
    span = tl.maximum(length - 1, 1)
    even = copy % 2 == 0
    low = copy * span + tl.where(even, first, length - 1 - last)
    high = copy * span + tl.where(even, last, length - 1 - first)
    start = (tl.maximum(low - PAD, 0) + STRIDE - 1) // STRIDE
    stop = tl.minimum(tl.maximum(high + PAD, 0) // STRIDE, out_length - 1)
    return start, tl.maximum(stop - start + 1, 0)


@triton.jit(do_not_specialize=PER_MAP)
def grad_keys_tiles(
    grad, g_b, g_h, g_d, g_y, g_x,
    q, q_b, q_h, q_d, q_y, q_x,
    k, k_b, k_h, k_d, k_y, k_x,
    v, v_b, v_h, v_d, v_y, v_x,
    position, p_d, p_y, p_x,
    grad_k, gk_b, gk_h, gk_d, gk_y, gk_x,
    grad_v, gv_b, gv_h, gv_d, gv_y, gv_x,
    log_sum, delta, scale, heads, height, width, out_height, out_width, tiles_y, tiles_x, folds_y, folds_x,
    OFFSET: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_POSITION: tl.constexpr,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The keys of a tile collect from the queries around each of their reflections. Away from the border there is
    one; at the border the queries that see the others are few, and only they are visited. Gradients of a padded map,
    to be folded afterwards, would be written and read in fp32 several times and take dozens of launches.
    """
    tl.static_assert(DILATION == 1)
    PAD: tl.constexpr = KERNEL // 2
    image, head, top, left = locate(heads, tiles_y, tiles_x, TILE_H, TILE_W)
    lane = tl.arange(0, TILE_H * TILE_W)
    y = top + lane // TILE_W
    x = left + lane % TILE_W
    inside = (y < height) & (x < width)
    y = tl.minimum(y, height - 1)
    x = tl.minimum(x, width - 1)
    bottom = tl.minimum(top + TILE_H, height) - 1
    right = tl.minimum(left + TILE_W, width) - 1
    grad += image * g_b + head * g_h
    q += image * q_b + head * q_h
    values = load_pixels(v + image * v_b + head * v_h, v_d, pixel_offsets(y, x, v_y, v_x, OFFSET), D, BLOCK_D)
    keys = load_keys(
        k + image * k_b + head * k_h, k_d, pixel_offsets(y, x, k_y, k_x, OFFSET),
        position, p_d, pixel_offsets(y, x, p_y, p_x, OFFSET),
        D, BLOCK_D, HAS_POSITION,
    ).to(values.dtype)  # fmt: skip
    keys = tl.trans(keys)
    values = tl.trans(values)
    grads_k = tl.zeros((TILE_H * TILE_W, BLOCK_D), tl.float32)
    grads_v = tl.zeros((TILE_H * TILE_W, BLOCK_D), tl.float32)
    flat = (image * heads + head) * out_height * out_width
    first_y, last_y = copies_in_reach(top, bottom, height, PAD, folds_y)
    first_x, last_x = copies_in_reach(left, right, width, PAD, folds_x)
    for copy_y in range(first_y, last_y + 1):
        shown_y = image_of(y, copy_y, height)
        start_y, rows = queries_in_reach(top, bottom, copy_y, height, out_height, STRIDE, PAD)
        for copy_x in range(first_x, last_x + 1):
            shown_x = image_of(x, copy_x, width)
            start_x, cols = queries_in_reach(left, right, copy_x, width, out_width, STRIDE, PAD)
            inverse = 1.0 / tl.maximum(cols, 1)
            for start in range(0, rows * cols, BLOCK):
                index = start + tl.arange(0, BLOCK)
                row, col = region_pixel(tl.minimum(index, rows * cols - 1), cols, inverse)
                row += start_y
                col += start_x
                pixels = pixel_offsets(row * STRIDE, col * STRIDE, q_y, q_x, OFFSET)
                queries = load_pixels(q, q_d, pixels, D, BLOCK_D)
                grads = load_pixels(grad, g_d, pixel_offsets(row, col, g_y, g_x, OFFSET), D, BLOCK_D).to(queries.dtype)
                here = flat + row * out_width + col
                log_sums = tl.load(log_sum + here)
                deltas = tl.load(delta + here)
                query_y = tl.where(index < rows * cols, row * STRIDE, -FAR)
                near_y = tl.abs(query_y[None, :] - shown_y[:, None]) <= PAD
                near_x = tl.abs((col * STRIDE)[None, :] - shown_x[:, None]) <= PAD
                logits = tl.dot(keys, queries, input_precision='tf32') * scale
                logits = tl.where(near_y & near_x, logits, float('-inf'))
                weights = probability(logits, log_sums[None, :])
                grads_v = tl.dot(weights.to(queries.dtype), tl.trans(grads), grads_v, input_precision='tf32')
                weights *= tl.dot(values, grads, input_precision='tf32') - deltas[None, :]
                grads_k = tl.dot(weights.to(queries.dtype), tl.trans(queries), grads_k, input_precision='tf32')
    grads_k = tl.trans(grads_k) * scale
    grads_v = tl.trans(grads_v)
    pixels = pixel_offsets(y, x, gk_y, gk_x, OFFSET)
    store_pixels(grad_k + image * gk_b + head * gk_h, gk_d, pixels, grads_k, inside, D, BLOCK_D)
    pixels = pixel_offsets(y, x, gv_y, gv_x, OFFSET)
    store_pixels(grad_v + image * gv_b + head * gv_h, gv_d, pixels, grads_v, inside, D, BLOCK_D)
