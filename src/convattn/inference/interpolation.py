"""Network interpolation: a continuous choice between fidelity and sharpness.

Source: Wang et al., "ESRGAN", ECCVW 2018, section 3.4.
"""

from torch import nn

from convattn.errors import InputError

__all__ = ["interpolate"]


def interpolate(sharp: nn.Module, faithful: nn.Module, fidelity: float) -> nn.Module:
    """Blend the weights of two networks of one shape.

    Args:
        sharp: The network for ``fidelity`` 0, whose weights are replaced.
        faithful: The network for ``fidelity`` 1, trained without an adversarial or perceptual loss.
        fidelity: 0 to 1.

    Returns:
        The first network.

    Raises:
        InputError: ``fidelity`` is out of range, or the networks differ in shape.
    """
    if not 0 <= fidelity <= 1:
        raise InputError(f"Fidelity is a number from 0 (sharpest) to 1 (most faithful), not {fidelity:g}.")
    first, second = sharp.state_dict(), faithful.state_dict()
    if {key: tensor.shape for key, tensor in first.items()} != {
        key: tensor.shape for key, tensor in second.items()
    }:
        raise InputError("The sharp and the faithful weights belong to networks of different shapes.")
    blended = {key: tensor.lerp(second[key], fidelity) for key, tensor in first.items()}
    sharp.load_state_dict(blended)
    return sharp
