"""Arguments that do not fit together give one ValueError whatever the backend, empty ones empty results."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from convattn.ops import (
    conv_attention,
    convolution,
    predict_kernel,
    predicted_conv_attention,
    reflect_pad,
    window_attention,
)

from .conftest import (
    convolution_of_one_map,
    normalized_feed_forward,
    normalized_self_attention,
    whole_convolution,
)

C, HIDDEN, HEADS, WINDOW = 4, 6, 2, 3
TABLE = (HEADS, (2 * WINDOW - 1) ** 2)
PREDICTOR = [(3, C, 1, 1), (3,), (9 * C, 3, 1, 1), (9 * C,)]
NORM = [(C,), (C,)]
WEIGHTS = [(HIDDEN, C, 1, 1), (HIDDEN,), (HIDDEN, 1, 3, 3), (HIDDEN,), (C, HIDDEN, 1, 1), (C,)]


Shapes = list[tuple[int, ...]]


def shapes_of(x: tuple[int, int, int, int]) -> dict[str, tuple[Callable[..., Tensor], Shapes, int]]:
    """Every operator with the shapes of its arguments, and how many channels the result has."""
    n, _, *size = x
    return {
        "conv_attention": (conv_attention, [x, (C, C, 5, 5), (n, C, 3, 3)], C),
        "depthwise": (conv_attention, [x, (C, 1, 5, 5), (n, C, 3, 3)], C),
        "predicted_conv_attention": (predicted_conv_attention, [x, (C, C, 5, 5), *PREDICTOR], C),
        "1×1": (whole_convolution, [x, (n, 2, *size), (n, 7, *size), (7, C + 2, 1, 1), (7,), *NORM], 7),
        "3×3": (convolution_of_one_map, [x, (n, 7, *size), (7, C, 3, 3), (7,), *NORM], 7),
        "feed_forward": (normalized_feed_forward, [x, *WEIGHTS, *NORM], C),
        "window_attention": (window_attention, [x, x, x, TABLE], C),
        "self_attention": (normalized_self_attention, [x, (3 * C, C, 1, 1), (3 * C,), TABLE, *NORM], C),
    }


OPERATORS = list(shapes_of((2, C, 5, 6)))


@given(st.data())
def test_a_wrong_shape_is_the_same_error_from_every_backend(data: st.DataObject) -> None:
    operator, shapes, _ = shapes_of((2, C, 5, 6))[data.draw(st.sampled_from(OPERATORS))]
    which = data.draw(st.integers(0, len(shapes) - 1))
    shape = list(shapes[which])
    axis = data.draw(st.integers(0, len(shape) - 1))
    change = data.draw(st.sampled_from(["drop", "unsqueeze", -3, -2, -1, 1, 2, 5]))
    if change == "drop":
        del shape[axis]
    elif change == "unsqueeze":
        shape.insert(axis, 1)
    else:
        shape[axis] = max(0, shape[axis] + int(change))
    wrong = [*shapes[:which], tuple(shape), *shapes[which + 1 :]]
    args, said = [torch.rand(shape) for shape in wrong], set()
    for backend in (None, "cpu", "reference"):
        try:
            out = operator(*args, backend=backend)
        except ValueError as error:
            said.add(str(error))
        else:  # a kernel of another size, for example, is as right as the first
            said.add(str(tuple(out.shape)))
            torch.testing.assert_close(out, operator(*args, backend="reference"), rtol=1e-4, atol=1e-4)
    assert len(said) == 1


@pytest.mark.parametrize("empty", [(0, C, 5, 6), (2, C, 0, 6), (2, C, 5, 0), (0, C, 0, 0)])
@pytest.mark.parametrize("backend", ["cpu", "reference", None])
@pytest.mark.parametrize("name", OPERATORS)
def test_no_pixels_give_none_and_gradients_of_zero(name: str, backend: str | None, empty: tuple) -> None:
    operator, shapes, channels = shapes_of(empty)[name]
    args = [torch.rand(shape, requires_grad=True) for shape in shapes]
    out = operator(*args, backend=backend)
    assert out.shape == (empty[0], channels, *empty[2:])
    grads = torch.autograd.grad(out.sum(), args, allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)
    with torch.no_grad():
        assert operator(*args, backend=backend).shape == out.shape


@pytest.mark.parametrize("strange", [torch.expand_copy, torch.Tensor.expand], ids=["copied", "expanded"])
def test_a_norm_of_any_strides(strange: Callable[..., Tensor]) -> None:
    x, one = torch.rand(1, C, 4, 4), torch.rand(1)
    norm = (strange(one, (C,)), strange(one, (C,)), 1e-6)
    args = dict(weight=torch.rand(C, C, 1, 1), bias=torch.rand(C), norm=norm)
    torch.testing.assert_close(convolution(x, **args), convolution(x, **args, backend="reference"))


def test_predict_kernel_and_padding_check_as_well() -> None:
    with pytest.raises(ValueError, match="odd k"):
        predict_kernel(torch.rand(1, C, 3, 3), *map(torch.rand, [*PREDICTOR[:3], (4 * C,)]))
    with pytest.raises(ValueError, match="cannot be continued"):
        reflect_pad(torch.rand(1, C, 0, 3), bottom=1)
    with pytest.raises(ValueError, match="cannot be continued"):
        reflect_pad(torch.rand(1, C, 3, 3), left=-1)
