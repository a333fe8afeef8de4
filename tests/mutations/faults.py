"""Faults that somebody could make, one at a time, and the tests that must notice each of them (see run.py)."""
from typing import NamedTuple, Tuple


class Fault(NamedTuple):
    """A wrong change of one file.

    Attributes:
        name: For the table and for --only.
        file: Of the project.
        old: What is replaced, in the file just once.
        new: What it is replaced with.
        tests: Files, or single tests, one of which must fail.
        why: What would be wrong.
    """

    name: str
    file: str
    old: str
    new: str
    tests: Tuple[str, ...]
    why: str


OPS, LAYERS, BACKBONES = 'mmacmix/ops/', 'mmacmix/layers/', 'mmacmix/backbones/'
ATTENTION, WINDOWS = 'tests/ops/test_local_attention.py', 'tests/ops/test_window_attention.py'
ACMIX, WINDOW_ACMIX = 'tests/layers/test_acmix.py', 'tests/layers/test_window_acmix.py'
PATCHWISE, REDUCED = 'tests/layers/test_patchwise_acmix.py', 'tests/layers/test_reduced_acmix.py'
ANY, SPEED, STARTS = 'tests/backbones/test_backbones.py', 'tests/backbones/test_speed_paths.py', 'tests/test_starts.py'
GUARD, CHECKPOINTS = 'tests/engine/test_checkpoint_guard.py', 'tests/test_checkpoints.py'

FAULTS = [
    # Operators: local attention.
    Fault('scale-missing', f'{OPS}local_attention.py',
          'q.size(2) ** -0.5 if scale is None', '1.0 if scale is None',
          (ACMIX,), 'logits are not divided by the root of d'),
    Fault('window-shifted', f'{OPS}tiles.py',
          '            first * stride,\n            dilation,', '            first * stride + 1,\n            dilation,',
          (ATTENTION,), 'windows lie one pixel further on'),
    Fault('reflection-clamped', f'{OPS}reflection.py',
          '    place = place.remainder(period)\n    return torch.minimum(place, period - place)',
          '    return place.clamp(0, period // 2)',
          ('tests/ops/test_reflection.py',), 'the border is repeated, not reflected'),
    Fault('reflection-zero', f'{OPS}maps.py',
          'part = maps.index_select(dim, index[start : start + self.pad])',
          'part = torch.zeros_like(maps.narrow(dim, start, self.pad))',
          (ATTENTION,), 'tiles see zeros beyond the border'),
    Fault('border-gradient-lost', f'{OPS}reflection.py',
          'grad.select(dim, pad + index[i]).add_(grad.select(dim, i))', 'pass',
          ('tests/ops/test_reflection.py',), 'what the border read has no gradient'),
    Fault('ceil-to-floor', f'{OPS}window.py',
          'return -(-length // self.stride)', 'return length // self.stride',
          (ATTENTION,), 'a stride drops the last row of an odd map'),
    Fault('position-sign', f'{OPS}maps.py',
          'torch.sub(k[:, :, rows], code[rows], out=', 'torch.add(k[:, :, rows], code[rows], out=',
          (ATTENTION,), 'the position code counts in the opposite direction'),
    Fault('query-gradient-scale', f'{OPS}maps.py',
          'self._queries(sums_q.mul_(window.scale), grads[0])', 'self._queries(sums_q, grads[0])',
          (ATTENTION,), "the queries' gradient lacks the scale"),
    Fault('dilation-ignored', f'{OPS}maps.py',
          'self.pad = window.pad', 'self.pad = window.kernel_size // 2',
          (ATTENTION,), 'the border of a dilated window is too narrow'),
    Fault('export-window-shifted', f'{OPS}exporting.py',
          'dilation - kernel_size // 2 * dilation', 'dilation - kernel_size // 2 * dilation + 1',
          ('tests/ops/test_exporting.py',), 'exported windows lie one pixel further on'),
    Fault('triton-window-narrow', f'{OPS}triton_forward.py',
          'near_x = tl.abs(col[None, :] - (x * STRIDE)[:, None]) <= KERNEL // 2',
          'near_x = tl.abs(col[None, :] - (x * STRIDE)[:, None]) < KERNEL // 2',
          ('tests/ops/test_triton_kernels.py::test_small_maps',), 'the kernel leaves out the outer columns of a window'),
    Fault('triton-gradient-scale', f'{OPS}triton_backward.py',
          'store_pixels(grad_q + image * gq_b + head * gq_h, gq_d, pixels, result * scale, inside, D, BLOCK_D)\n\n\n'
          '@triton.jit(do_not_specialize=PER_MAP)\ndef grad_keys_taps(',
          'store_pixels(grad_q + image * gq_b + head * gq_h, gq_d, pixels, result, inside, D, BLOCK_D)\n\n\n'
          '@triton.jit(do_not_specialize=PER_MAP)\ndef grad_keys_taps(',
          ('tests/ops/test_triton_kernels.py::test_windows_with_few_common_keys',),
          "the kernel's gradient of the queries lacks the scale"),
    # Operators: attention in windows.
    Fault('shift-mask-columns', f'{OPS}window_attention.py',
          'summand[:, -1] += right', 'pass',
          (WINDOWS,), 'pixels brought round by the shift see each other across the right edge'),
    Fault('shift-mask-rows', f'{OPS}window_attention.py',
          'summand[-1, :-1] += down', 'pass',
          (WINDOWS,), 'pixels brought round by the shift see each other across the lower edge'),
    Fault('key-gradient-scale', f'{OPS}window_attention.py',
          'results[:2].mul_(scale)', 'results[:1].mul_(scale)',
          (WINDOWS,), "the keys' gradient lacks the scale"),
    Fault('bias-gradient-of-one-chunk', f'{OPS}window_attention.py',
          'grad_bias += slopes.view(-1, *bias.shape).sum(0)', 'grad_bias = slopes.view(-1, *bias.shape).sum(0)',
          (WINDOWS,), 'the gradient of the position bias forgets all windows but the last'),
    # Operators: the convolution path, SAN's aggregation and perceptron.
    Fault('mixing-bias-lost', f'{OPS}conv_path.py',
          'return mixed if bias is None else mixed + bias[:, None, None]', 'return mixed',
          ('tests/ops/test_conv_path.py',), "fc's bias is left out with many heads"),
    Fault('paired-groups-crossed', f'{OPS}conv_path.py',
          'F.pad(first, (0, 0, 0, 0, 0, inputs)), F.pad(second, (0, 0, 0, 0, inputs, 0))',
          'F.pad(first, (0, 0, 0, 0, inputs, 0)), F.pad(second, (0, 0, 0, 0, 0, inputs))',
          ('tests/ops/test_conv_path.py',), 'two groups of the convolution read each other'),
    Fault('bias-gradient-mean', f'{OPS}biased.py',
          'grad.sum((0, 2, 3), ', 'grad.mean((0, 2, 3), ',
          ('tests/ops/test_conv_path.py',), "a bias' gradient is a mean"),
    Fault('weights-shared-by-blocks', f'{OPS}aggregation.py',
          'return part.unflatten(1, like.shape[1:3])',
          'return part.unflatten(1, (like.size(2), like.size(1))).transpose(1, 2)',
          ('tests/ops/test_aggregation.py',), 'neighbouring channels share weights instead of every G-th'),
    Fault('perceptron-slope', f'{OPS}window_mlp.py',
          'back = torch.where(hidden > 0, back, back.new_zeros(()))', 'pass',
          ('tests/ops/test_aggregation.py',), 'the gradient passes where the perceptron is cut off'),
    # Layers.
    Fault('gradient-of-one-path', f'{LAYERS}fork.py',
          'first.add_(second)', 'first.add_(second, alpha=0.5)',
          (ACMIX,), 'the projection learns from half of the convolution path'),
    Fault('shift-start-transposed', f'{LAYERS}shift.py',
          'view(taps, *weight.shape[2:]))', 'view(taps, *weight.shape[2:]).transpose(1, 2))',
          (ACMIX, WINDOW_ACMIX), 'shifts start along the other axis'),
    Fault('rate2-missing', f'{LAYERS}acmix.py',
          'kernels = kernels * rate.unsqueeze(1)', 'kernels = kernels + 0 * rate.unsqueeze(1)',
          (ACMIX,), 'the rate of the convolution path counts nothing'),
    Fault('rates-swapped', f'{LAYERS}acmix.py',
          "for name in ('rate1', 'rate2')]\n        shift = None", "for name in ('rate2', 'rate1')]\n        shift = None",
          (ACMIX,), 'each path takes the rate of the other'),
    Fault('heads-by-channels', f'{LAYERS}acmix.py',
          'return attention.flatten(1, 2)', 'return attention.transpose(1, 2).flatten(1, 2)',
          (ACMIX,), 'attention is ordered (d, head), as the convolution is'),
    Fault('position-axes-swapped', f'{LAYERS}acmix.py',
          'torch.stack([xs, ys.expand(height, width)])', 'torch.stack([ys.expand(height, width), xs])',
          (ACMIX,), 'the position code takes x for y'),
    Fault('affine-on-one-path', f'{LAYERS}acmix.py',
          'rates = [scale if rate is None else rate * scale for rate in rates]',
          'rates = [scale if rate is None else rate * scale ** i for i, rate in enumerate(rates)]',
          (ACMIX,), 'a folded normalisation scales the convolution path alone'),
    Fault('table-transposed', f'{LAYERS}window_acmix.py',
          'return dy * (2 * window - 1) + dx', 'return dx * (2 * window - 1) + dy',
          (WINDOW_ACMIX,), 'the relative position bias takes x for y'),
    Fault('seam-not-crossed', f'{LAYERS}window_acmix.py',
          'return self._attend(attended, shift, merged).add_(self._convolve(convolved, merged))',
          'convolved = self._convolve(convolved.roll((shift, shift), (1, 2)), merged).roll((-shift, -shift), (1, 2))\n'
          '            return self._attend(attended, shift, merged).add_(convolved)',
          (WINDOW_ACMIX,), 'the convolution sees zeros at the seam of a shifted map'),
    Fault('window-rate2-missing', f'{LAYERS}window_acmix.py',
          'kernels = self.rate2.view(-1, 1, 1, 1) * kernels', 'kernels = self.rate1.view(-1, 1, 1, 1) * kernels',
          (WINDOW_ACMIX,), "the convolution path takes attention's rate"),
    Fault('bias-beyond-the-border', f'{LAYERS}reduced_acmix.py',
          'out = grouped_convolution(torch.cat([inputs, ones], 2), merged.kernels)',
          'out = grouped_convolution(inputs, merged.kernels[:, :-1])\n'
          '            out = out + merged.kernels[:, -1:].sum((2, 3), keepdim=True).transpose(0, 1) * ones[:, 0, :, :1, :1]',
          (REDUCED,), "fc's bias counts beyond the border, where the map is padded with zeros"),
    Fault('enlarged-by-half-a-pixel', f'{LAYERS}reduced_acmix.py',
          "mode='nearest')", "mode='nearest-exact')",
          (REDUCED,), 'keys and values lie half a pixel off the queries'),
    Fault('keys-for-values', f'{LAYERS}reduced_acmix.py',
          'keys, values = kv.flatten(1, 2)', 'values, keys = kv.flatten(1, 2)',
          (REDUCED,), 'keys and values change places'),
    Fault('variance-biased', f'{LAYERS}patchwise_acmix.py',
          'unbiased = variance * (count / (count - 1))', 'unbiased = variance * 1.0',
          (PATCHWISE,), 'running variances are those of the batch, not unbiased'),
    Fault('deploy-without-rate1', f'{LAYERS}patchwise_acmix.py',
          'rate = self.rate1 if self.paths == PATHS else 1', 'rate = 1',
          (PATCHWISE,), "the deploy form lacks attention's rate"),
    # Backbones.
    Fault('fold-without-scale', f'{BACKBONES}fold.py',
          'merged.weight.copy_(conv.weight * affine[0].view(-1, 1, 1, 1))', 'merged.weight.copy_(conv.weight)',
          (f'{SPEED}::test_deploy_form',), 'the deploy form lacks the scale of the normalisation'),
    Fault('fold-without-eps', f'{BACKBONES}fold.py',
          'torch.rsqrt(norm.running_var.to(exact) + norm.eps)', 'torch.rsqrt(norm.running_var.to(exact))',
          (f'{SPEED}::test_folded_norms_are_exact',), 'folded normalisations divide by a channel without variance'),
    Fault('blocks-shifted-the-wrong-way', f'{BACKBONES}swin_acmix.py',
          'window_size // 2 if i % 2 else 0', '0 if i % 2 else window_size // 2',
          (f'{ANY}::test_swin_patch_norm_and_drop_path',), 'every first block of Swin is shifted instead of every second'),
    Fault('merging-order', f'{BACKBONES}swin_acmix.py',
          'permute(0, 1, 3, 5, 2, 4)', 'permute(0, 1, 3, 5, 4, 2)',
          (f'{STARTS}::test_the_start_preserves_the_function',), 'merged pixels lie in another order than weights expect'),
    Fault('embedding-nearest', f'{BACKBONES}pvt_acmix.py',
          "mode='bilinear')", "mode='nearest')",
          (f'{STARTS}::test_the_start_preserves_the_function',), 'position embeddings of other sizes are not interpolated'),
    Fault('pooling-floor', f'{BACKBONES}san_acmix.py',
          'F.max_pool2d(x, 2, 2, ceil_mode=True)', 'F.max_pool2d(x, 2, 2)',
          (f'{ANY}::test_any_size',), 'SAN drops the last row of an odd map'),
    Fault('maps-not-contiguous', f'{BACKBONES}resnet_acmix.py',
          '(channels_last_gradient(x) if on_cpu else x).contiguous()', 'channels_last_gradient(x) if on_cpu else x',
          (f'{ANY}::test_maps_are_contiguous',), "the hosts' operators would read another format without a word"),
    Fault('one-stage-less-frozen', f'{BACKBONES}base.py',
          'for stage in range(self.frozen_stages):', 'for stage in range(self.frozen_stages - 1):',
          (f'{ANY}::test_frozen_stages',), 'the last stage that should be frozen learns'),
    # Weights of others, and checkpoints.
    Fault('start-rates-swapped', 'mmacmix/converters/plain.py',
          "state[f'{layer}rate1'], state[f'{layer}rate2'] =", "state[f'{layer}rate2'], state[f'{layer}rate1'] =",
          (f'{STARTS}::test_the_start_preserves_the_function',), 'a start from plain weights begins with the convolution path'),
    Fault('class-token-at-the-end', 'mmacmix/converters/plain.py',
          'value = value[:, 1:]', 'value = value[:, :-1]',
          (f'{STARTS}::test_pvt_layouts_agree',), 'position embeddings shift by one pixel'),
    Fault('keys-from-queries', 'mmacmix/converters/plain.py',
          'value[:channels], value[channels:]', 'value[-channels:], value[:-channels]',
          (f'{STARTS}::test_the_start_preserves_the_function',), 'queries, keys and values change places'),
    Fault('merging-transposed', 'mmacmix/converters/names.py',
          'pixels.transpose(-3, -1).flatten(-3)', 'pixels.movedim(-1, -3).flatten(-3)',
          (f'{CHECKPOINTS}::test_merging_takes_the_pixels_in_the_order_of_the_release',), 'converted patch merging takes x for y'),
    Fault('feed-forward-swapped', 'mmacmix/converters/names.py',
          r"(r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),", r"(r'\.mlp\.fc1\.', '.ffn.layers.1.0.'),",
          (f'{CHECKPOINTS}::test_classifier_and_made_buffers_are_dropped',), 'a layer gets a name that nobody has'),
    Fault('norm-of-another-stage', 'mmacmix/converters/acmix.py',
          "key.replace('norm.', f'norm{last}.')", "key.replace('norm.', f'norm{last - 1}.')",
          ('tests/backbones/test_golden.py',), 'the normalisation of the last stage goes to the one before'),
    Fault('guard-off', 'mmacmix/engine/checkpoint_guard.py',
          '        if problem:', '        if problem and fine_tuning:',
          (GUARD,), 'a test runs on half-loaded weights'),
    Fault('guard-skips-resuming', 'mmacmix/engine/checkpoint_guard.py',
          'and not runner._resume', '',
          (GUARD,), 'a resumed training may lack its heads'),
    Fault('shapes-unchecked', 'mmacmix/checkpoints.py',
          'state[key].shape != own[key].shape', 'state[key].dim() != own[key].dim()',
          (f'{CHECKPOINTS}::test_mismatch',), 'weights of another width pass'),
    Fault('real-getattr', 'mmacmix/safe_globals.py',
          "(history_buffer_getattr, 'builtins.getattr')", "(getattr, 'builtins.getattr')",
          (f'{GUARD}::test_crafted_checkpoints_stay_refused',), 'a checkpoint can reach any function'),
    Fault('hollow-tensors', 'mmacmix/state_dicts.py',
          'v.numel() * v.element_size() > v.untyped_storage().nbytes()', 'v.untyped_storage().nbytes() == 0 < v.numel()',
          (f'{CHECKPOINTS}::test_hollow_tensors',), 'a few bytes claim a tensor of any size'),
]
