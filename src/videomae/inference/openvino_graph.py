"""The blocks of an encoder as a graph of OpenVINO, with or without 8-bit integers.

`N` tokens, `D` width, `H` heads, `d` width of a head, `K` inputs of a linear layer, `F` its outputs.

In 8-bit integers weights have a scale for each output, and inputs one range for all, found beforehand on some clips.
Where one input is much larger than the others, these would share a few integers: so inputs are divided by factors
that the weights are multiplied by, which changes nothing but the rounding.

Source: such factors are those of SmoothQuant (Xiao et al. 2023, arXiv 2211.10438, equation 4, alpha 0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from videomae.model.layers import VideoMAELayer

if TYPE_CHECKING:
    from openvino import Model, Node

Floats = NDArray[np.float32]
ONE: Floats = np.ones(1, np.float32)

LARGEST_WEIGHT = 127  # symmetric: -127 to 127
LEVELS = 256  # of inputs, which are not symmetric
SMALLEST = 1e-6  # of a range, so that nothing is divided by zero


class ValueRange(NamedTuple):
    """The least and the largest value of each of K features of all tokens."""

    low: Floats
    """`[K]`."""
    high: Floats
    """`[K]`."""

    def joined(self, other: ValueRange) -> ValueRange:
        """Return the range of both."""
        return ValueRange(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


class BlockRanges(NamedTuple):
    """The ranges of what the matrix multiplications of a block are given."""

    attention: ValueRange
    """Of what query, key and value are computed from."""
    query: ValueRange
    """Of queries."""
    key: ValueRange
    """Of keys."""
    context: ValueRange
    """Of the output projection of attention."""
    intermediate: ValueRange
    """Of the first layer of the MLP."""
    output: ValueRange
    """Of the second."""


def blocks_graph(
    layers: Sequence[VideoMAELayer], num_tokens: int, ranges: Sequence[BlockRanges] | None = None
) -> Model:
    """Return a graph that takes and gives float32 `[1, N, D]`.

    Args:
        layers: In order; those of this package, nothing in them replaced.
        num_tokens: N. Kernels for one number are faster than those for any (6 % in 8-bit integers).
        ranges: Of each block, for 8-bit integers; None: no integers.
    """
    import openvino
    from openvino import opset13 as ops

    width = layers[0].attention.attention.all_head_size
    tokens = ops.parameter(openvino.PartialShape([1, num_tokens, width]), np.float32)
    hidden: Node = tokens
    for number, layer in enumerate(layers):
        hidden = _block(ops, layer, hidden, None if ranges is None else ranges[number])
    return openvino.Model([hidden], [tokens], "blocks")


def _block(ops: Any, layer: VideoMAELayer, hidden: Node, ranges: BlockRanges | None) -> Node:
    """Add a block, `VideoMAELayer.forward`, to what computes `hidden`."""
    attention, dense = layer.attention.attention, layer.attention.output.dense
    projections = (attention.query, attention.key, attention.value)
    expand, contract = layer.intermediate.dense, layer.output.dense
    by_input = by_context = by_expanded = ONE
    if ranges is not None:
        by_input = _factors(ranges.attention, projections)
        by_context = _factors(ranges.context, (dense,))
        by_expanded = _factors(ranges.intermediate, (expand,))

    inputs = _norm(ops, hidden, layer.layernorm_before, by_input)
    inputs = _rounded(ops, inputs, ranges and ranges.attention, by_input)
    heads = np.array([0, 0, attention.num_attention_heads, attention.attention_head_size], np.int64)
    parts = []
    for linear in projections:
        # What the context is divided by, the values are: attention only averages them.
        divisor = by_context if linear is attention.value else ONE
        projected = _linear(ops, inputs, linear, by_input, divisor=divisor, eight=ranges is not None)
        if ranges is not None and linear is not attention.value:
            projected = _rounded_evenly(ops, projected, ranges.query if linear is attention.query else ranges.key)
        parts.append(ops.transpose(ops.reshape(projected, heads, True), np.array([0, 2, 1, 3])))  # [1, H, N, d]
    context = ops.transpose(ops.scaled_dot_product_attention(*parts), np.array([0, 2, 1, 3]))
    context = ops.reshape(context, np.array([0, 0, attention.all_head_size]), True)  # [1, N, D]
    context = _rounded(ops, context, ranges and ranges.context, by_context)
    attended = _linear(ops, context, dense, by_context, eight=ranges is not None)
    hidden = ops.add(hidden, _scaled(ops, attended, layer.gamma_1))

    inputs = _norm(ops, hidden, layer.layernorm_after, by_expanded)
    inputs = _rounded(ops, inputs, ranges and ranges.intermediate, by_expanded)
    expanded = _linear(ops, inputs, expand, by_expanded, eight=ranges is not None)
    expanded = _activation(ops, layer.intermediate.intermediate_act_fn)(expanded)
    expanded = _rounded(ops, expanded, ranges and ranges.output, ONE)
    contracted = _linear(ops, expanded, contract, ONE, eight=ranges is not None)
    return ops.add(hidden, _scaled(ops, contracted, layer.gamma_2))


def _norm(ops: Any, tokens: Node, norm: nn.LayerNorm, divisor: Floats) -> Node:
    normalized = ops.mvn(tokens, np.array([2]), True, norm.eps, "inside_sqrt")
    return ops.add(ops.multiply(normalized, _floats(norm.weight) / divisor), _floats(norm.bias) / divisor)


def _linear(
    ops: Any,
    inputs: Node,
    linear: nn.Linear,
    factors: Floats,
    *,
    divisor: Floats = ONE,
    eight: bool,
) -> Node:
    """Add a linear layer of inputs divided by `factors` `[K]`, whose outputs are to be divided by `divisor` `[F]`."""
    weight = _floats(linear.weight) * factors / np.reshape(divisor, (-1, 1))  # [F, K]
    if eight:
        scales = np.maximum(np.abs(weight).max(axis=1, keepdims=True), SMALLEST) / LARGEST_WEIGHT  # [F, 1]
        integers = ops.constant(np.round(weight / scales).astype(np.int8))
        projected = ops.matmul(inputs, ops.multiply(ops.convert(integers, "f32"), scales), False, True)
    else:
        projected = ops.matmul(inputs, ops.constant(np.ascontiguousarray(weight)), False, True)
    return projected if linear.bias is None else ops.add(projected, (_floats(linear.bias) / divisor)[None, None])


def _scaled(ops: Any, branch: Node, gamma: Tensor | None) -> Node:
    return branch if gamma is None else ops.multiply(branch, _floats(gamma))


def _activation(ops: Any, module: nn.Module) -> Callable[[Node], Node]:
    match module:
        case nn.GELU():
            return lambda tokens: ops.gelu(tokens, "erf" if module.approximate == "none" else "tanh")
        case nn.ReLU():
            return ops.relu  # type: ignore[no-any-return]
        case nn.SiLU():
            return ops.swish  # type: ignore[no-any-return]
    raise AssertionError(f"{type(module).__name__} is no activation of videomae.model.config.ACTIVATIONS")


def _factors(ranges: ValueRange, linears: Sequence[nn.Linear]) -> Floats:
    """Return what inputs are divided by, `[K]`, so that inputs and weights share what is large in either."""
    inputs = np.maximum(np.maximum(-ranges.low, ranges.high), SMALLEST)
    weights = np.max([np.abs(_floats(one.weight)).max(axis=0) for one in linears], axis=0)
    factors = np.sqrt(inputs / np.maximum(weights, SMALLEST))
    return np.asarray(factors / np.exp(np.log(factors).mean()), np.float32)


def _rounded(ops: Any, tokens: Node, ranges: ValueRange | None, factors: Floats) -> Node:
    """Round inputs that were divided by `factors` to `LEVELS` values, of which 0 is one."""
    if ranges is None:
        return tokens
    low, high = min(float((ranges.low / factors).min()), 0.0), max(float((ranges.high / factors).max()), SMALLEST)
    step = (high - low) / (LEVELS - 1)
    below = round(-low / step)
    bounds = np.float32(-below * step), np.float32((LEVELS - 1 - below) * step)
    return ops.fake_quantize(tokens, *bounds, *bounds, LEVELS)


def _rounded_evenly(ops: Any, tokens: Node, ranges: ValueRange) -> Node:
    """Round values to integers from -128 to 127: two of these are multiplied exactly."""
    largest = max(float(np.maximum(-ranges.low, ranges.high).max()), SMALLEST)
    bounds = np.float32(-largest * (LARGEST_WEIGHT + 1) / LARGEST_WEIGHT), np.float32(largest)
    return ops.fake_quantize(tokens, *bounds, *bounds, LEVELS)


def _floats(tensor: Tensor) -> Floats:
    values: Floats = tensor.detach().float().cpu().numpy()
    return values
