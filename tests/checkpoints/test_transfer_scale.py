"""Weights of one scale as a start for another."""

import pytest
import torch
import torch.nn.functional as F

from convattn.checkpoints.loading import transfer_scale
from convattn.errors import InputError
from convattn.models.esc_real import ESCReal

from .conftest import small


@pytest.mark.parametrize(("old", "new"), [(2, 2), (2, 3), (2, 4), (3, 1)])
def test_transfer_scale_resizes_each_square(old: int, new: int) -> None:
    state = small(scale=old).state_dict()
    moved = transfer_scale(state, new)
    for key in ("to_image.weight", "to_image.bias"):
        before = state[key].reshape(3, old, old, -1)
        after = moved[key].reshape(3, new, new, -1)
        for color in range(3):
            for i in range(before.shape[-1]):
                square = before[None, None, color, ..., i]
                expected = F.interpolate(square, (new, new), mode="bilinear", align_corners=False)
                torch.testing.assert_close(after[color, ..., i], expected[0, 0])
    small(scale=new).load_state_dict(moved)


def test_transfer_scale_needs_a_classic_network() -> None:
    with pytest.raises(InputError, match="classic"):
        transfer_scale(small(ESCReal).state_dict(), 2)
