"""Local attention as it is defined: every window is written out. Plain, slow, differentiable."""

from torch import Tensor

from mmacmix.ops.reflection import pad_reflection


def local_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, stride: int, dilation: int, scale: float
) -> Tensor:
    """The specification of :func:`mmacmix.ops.local_attention`; holds kernel_size**2 copies of k and v."""
    span = (kernel_size - 1) * dilation + 1

    def windows(x: Tensor) -> Tensor:
        x = pad_reflection(x, span // 2)
        x = x.unfold(3, span, stride).unfold(4, span, stride)
        return x[..., ::dilation, ::dilation].flatten(-2)  # (B, heads, d, Hq, Wq, k * k)

    queries = q[..., ::stride, ::stride].unsqueeze(-1) * scale
    logits = (queries * windows(k)).sum(2, keepdim=True)
    return (logits.softmax(-1) * windows(v)).sum(-1)
